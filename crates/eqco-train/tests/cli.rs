//! Every flag sets the key that it stands for, and nothing else.

use clap::{CommandFactory, Parser};
use eqco_train::cli::{Cli, Command, ConfigArgs};
use eqco_train::config::{Preset, TrainConfig, known_keys};
use serde_json::{Value, json};

fn parse(arguments: &[&str]) -> Cli {
    Cli::try_parse_from(std::iter::once(&"eqco-train").chain(arguments)).unwrap()
}

fn resolve(arguments: &ConfigArgs) -> TrainConfig {
    arguments.resolve().unwrap().config
}

fn value(config: &TrainConfig, key: &str) -> Value {
    let tree = serde_json::to_value(config).unwrap();
    key.split('.').fold(tree, |tree, part| tree[part].clone())
}

/// The keys in which two configurations differ.
fn differences(a: &TrainConfig, b: &TrainConfig) -> Vec<String> {
    assert_eq!(known_keys(a), known_keys(b));
    known_keys(a)
        .into_iter()
        .filter(|key| value(a, key) != value(b, key))
        .collect()
}

#[test]
fn each_flag_changes_exactly_its_key() {
    let preset = Preset::named("demo").unwrap().config().unwrap();
    let cases = [
        (
            "--data",
            "fashion-mnist",
            "data.source",
            json!("fashion-mnist"),
        ),
        ("--data", "7", "data.source", json!("7")),
        ("--format", "shards", "data.format", json!("shards")),
        ("--limit", "500", "data.limit", json!(500)),
        ("--image-size", "20", "data.recipe.image_size", json!(20)),
        ("--batch-size", "96", "data.loader.batch_size", json!(96)),
        ("--method", "moco_v2", "method.name", json!("moco_v2")),
        (
            "--encoder",
            "resnet34",
            "encoder.architecture",
            json!("resnet34"),
        ),
        ("--width", "8", "encoder.width", json!(8)),
        ("--negatives", "32", "method.negative_count", json!(32)),
        ("--alpha", "decoupled", "loss.alpha", json!("decoupled")),
        ("--alpha", "4096", "loss.alpha", json!(4096.0)),
        ("--temperature", "0.07", "loss.temperature", json!(0.07)),
        ("--epochs", "77", "schedule.epochs", json!(77)),
        ("--lr", "0.5", "schedule.base_learning_rate", json!(0.5)),
        ("--seed", "9", "seed", json!(9)),
        ("--threads", "3", "threads", json!(3)),
        ("--micro-batch", "16", "method.micro_batch", json!(16)),
        ("--equivalent-batch", "1000", "loss.alpha", json!(999.0)),
        (
            "--set",
            "optimizer.nesterov=true",
            "optimizer.nesterov",
            json!(true),
        ),
    ];
    for (flag, text, key, expected) in cases {
        let config = resolve(&parse(&[flag, text]).pretrain.config);
        assert_eq!(differences(&preset, &config), [key], "{flag} {text}");
        assert_eq!(value(&config, key), expected, "{flag} {text}");
    }
    // The stem alone would not fit the demo's small images.
    let config = resolve(
        &parse(&["--stem", "imagenet", "--image-size", "32"])
            .pretrain
            .config,
    );
    assert_eq!(
        differences(&preset, &config),
        ["data.recipe.image_size", "encoder.stem"]
    );
}

#[test]
fn flags_for_what_this_build_lacks_reach_their_keys() {
    for (flag, text, key) in [
        ("--device", "cuda", "device"),
        ("--augment-on", "device", "data.augment_on"),
        ("--backend", "onednn", "backend"),
        ("--precision", "bf16", "precision"),
    ] {
        let settings = parse(&[flag, text]).pretrain.config.settings().unwrap();
        assert_eq!(settings.len(), 1);
        assert_eq!(
            (settings[0].key.as_str(), &settings[0].value),
            (key, &json!(text))
        );
        assert_eq!(settings[0].origin.to_string(), flag);
    }
}

#[test]
fn every_setting_flag_of_the_help_is_covered_above() {
    let tested = [
        "data",
        "format",
        "limit",
        "image-size",
        "batch-size",
        "method",
        "encoder",
        "width",
        "stem",
        "micro-batch",
        "negatives",
        "alpha",
        "equivalent-batch",
        "temperature",
        "epochs",
        "lr",
        "seed",
        "threads",
        "precision",
        "device",
        "augment-on",
        "backend",
        "set",
    ];
    let others = [
        "preset", "config", "out", "resume", "dry-run", "profile", "help", "version",
    ];
    let command = Cli::command();
    let flags: Vec<&str> = command
        .get_arguments()
        .filter_map(|flag| flag.get_long())
        .collect();
    let untested: Vec<_> = flags
        .iter()
        .filter(|flag| !tested.contains(flag) && !others.contains(flag))
        .collect();
    assert!(untested.is_empty(), "{untested:?}");
    assert_eq!(flags.len(), tested.len() + 6, "{flags:?}");
}

#[test]
fn a_flag_with_a_wrong_value_is_named() {
    let arguments = parse(&["--epochs", "ten"]).pretrain.config;
    let error = arguments.resolve().unwrap_err();
    assert_eq!(
        error.to_string(),
        "--epochs: `schedule.epochs`: expected a whole number, 0 or more, found string \"ten\""
    );
    let arguments = parse(&["--set", "seed"]).pretrain.config;
    let error = arguments.settings().unwrap_err();
    assert_eq!(
        error.to_string(),
        "--set seed: expected KEY=VALUE, found no `=`"
    );
}

#[test]
fn pretrain_is_the_default_command() {
    let bare = parse(&["--dry-run", "--seed", "1"]);
    assert!(bare.command.is_none() && bare.pretrain.dry_run);
    let Some(Command::Pretrain(named)) = parse(&["pretrain", "--dry-run", "--seed", "1"]).command
    else {
        panic!("pretrain is a command")
    };
    assert!(named.dry_run);
    assert_eq!(
        named.config.settings().unwrap(),
        bare.pretrain.config.settings().unwrap()
    );
    assert!(matches!(parse(&["doctor"]).command, Some(Command::Doctor)));
    assert!(matches!(
        parse(&["presets"]).command,
        Some(Command::Presets)
    ));
    Cli::command().debug_assert();
}

#[test]
fn set_comes_after_the_named_flags() {
    let arguments = parse(&["--set", "seed=2", "--seed", "1", "--set", "threads=4"])
        .pretrain
        .config;
    let config = resolve(&arguments);
    assert_eq!((config.seed, config.threads), (2, 4));
}
