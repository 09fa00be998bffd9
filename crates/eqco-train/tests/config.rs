//! Layers of the configuration, their errors, and the presets' figures.

use std::fs;
use std::path::PathBuf;

use eqco_core::Alpha;
use eqco_models::optim::{LarsConfig, OptimizerConfig, SgdConfig};
use eqco_train::config::{
    ConfigError, Origin, Preset, Resolved, Setting, TrainConfig, read_assignment,
};

fn resolve(preset: &str, assignments: &[&str]) -> Result<Resolved, ConfigError> {
    let flags = assignments
        .iter()
        .map(|text| read_assignment(text).unwrap())
        .collect();
    Resolved::new(preset, None, flags)
}

fn error(assignments: &[&str]) -> ConfigError {
    resolve("demo", assignments).unwrap_err()
}

/// A folder with one configuration file in it.
struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    fs::write(&path, text).unwrap();
    File {
        _folder: folder,
        path,
    }
}

fn file_error(text: &str) -> String {
    let file = file(text);
    let error = Resolved::new("demo", Some(&file.path), Vec::new())
        .unwrap_err()
        .to_string();
    error.replace(&file.path.display().to_string(), "my.toml")
}

#[test]
fn flags_override_the_file_and_the_file_overrides_the_preset() {
    let file = file("seed = 5\n[loss]\ntemperature = 0.5\nalpha = 64\n");
    let flag = Setting {
        key: "loss.temperature".to_owned(),
        value: 0.7.into(),
        origin: Origin::Flag("--temperature".to_owned()),
    };
    let resolved = Resolved::new("demo", Some(&file.path), vec![flag]).unwrap();
    let preset = Preset::named("demo").unwrap().config().unwrap();

    assert_eq!(resolved.config.loss.temperature, 0.7);
    assert_eq!(resolved.config.loss.alpha, Alpha::Equivalent(64.0));
    assert_eq!(resolved.config.seed, 5);
    assert_eq!(resolved.config.encoder, preset.encoder);
    assert_eq!(preset.loss.temperature, 0.2);

    let line = |line| Origin::File {
        path: file.path.clone(),
        line,
    };
    assert_eq!(resolved.origins.len(), 3);
    assert_eq!(
        resolved.origins["loss.temperature"],
        Origin::Flag("--temperature".to_owned())
    );
    assert_eq!(resolved.origins["loss.alpha"], line(4));
    assert_eq!(resolved.origins["seed"], line(1));
}

#[test]
fn a_later_set_overrides_an_earlier_one() {
    let resolved = resolve("demo", &["loss.alpha=8", "loss.alpha=decoupled"]).unwrap();
    assert_eq!(resolved.config.loss.alpha, Alpha::Decoupled);
}

#[test]
fn unknown_keys_are_named_with_their_place_and_the_nearest_key() {
    assert_eq!(
        error(&["loss.temprature=0.1"]).to_string(),
        "--set: unknown key `loss.temprature`, did you mean `loss.temperature`?"
    );
    assert_eq!(
        file_error("seed = 1\n\n[optimiser]\nweight_decay = 0.1\n"),
        "my.toml:4: unknown key `optimiser.weight_decay`, did you mean `optimizer.weight_decay`?"
    );
    // Without its section, inside a nested table, and with a key that only a default has filled in.
    for (typed, meant) in [
        ("temperature=1", "loss.temperature"),
        ("data.loader.batchsize=1", "data.loader.batch_size"),
        ("data.recipe.crop_scal=1", "data.recipe.crop_scale"),
        ("evaluation.knn.neighbors=3", "evaluation.knn.neighbours"),
    ] {
        let message = error(&[typed]).to_string();
        assert!(
            message.ends_with(&format!("did you mean `{meant}`?")),
            "{message}"
        );
    }
    let nothing_like_it = error(&["zzz=1"]);
    assert_eq!(nothing_like_it.to_string(), "--set: unknown key `zzz`");
    assert!(nothing_like_it.hint().unwrap().contains("show-config"));
}

#[test]
fn wrong_types_say_what_was_expected_and_found_and_where() {
    for (typed, message) in [
        (
            "loss.temperature=warm",
            "--set: `loss.temperature`: expected a number, found string \"warm\"",
        ),
        (
            "data.loader.batch_size=-1",
            "--set: `data.loader.batch_size`: expected a whole number, 0 or more, found integer `-1`",
        ),
        (
            "data.loader.batch_size=1.5",
            "--set: `data.loader.batch_size`: expected a whole number, 0 or more, \
             found floating point `1.5`",
        ),
        (
            "run.final_table=1",
            "--set: `run.final_table`: expected true or false, found integer `1`",
        ),
        (
            "device=gpu",
            "--set: `device`: expected `cpu`, `cuda` or `cuda:NUMBER`, found `gpu`",
        ),
        (
            "loss.temperature=nan",
            "--set: `loss.temperature`: expected a number, found string \"NaN\"",
        ),
        (
            "loss=3",
            "--set: `loss`: this is a section with the keys alpha, temperature",
        ),
        (
            "data.source=7",
            "--set: `data.source`: expected a string, found integer `7`",
        ),
        (
            "data.format=tar",
            "--set: `data.format`: expected one of `auto`, `packed`, `idx`, `cifar10`, \
             `cifar100`, `imagenet-tar`, `shards`, `parquet`, `folder`, found `tar`",
        ),
    ] {
        assert_eq!(error(&[typed]).to_string(), message, "{typed}");
    }
    assert_eq!(
        file_error("[encoder]\nwidth = 16\nstem = \"cifr\"\n"),
        "my.toml:3: `encoder.stem`: expected `imagenet` or `cifar`, found `cifr`"
    );
    assert!(file_error("seed = \n").starts_with("my.toml: TOML parse error at line 1"));
    let broken = file("seed = \n");
    let error = Resolved::new("demo", Some(&broken.path), Vec::new()).unwrap_err();
    assert!(error.hint().unwrap().starts_with("the file is TOML: "));
}

#[test]
fn the_loader_has_no_seed_of_its_own() {
    let config = resolve("demo", &["seed=3"]).unwrap().config;
    assert_eq!(config.data.loader.seed, 3);
    let text = config
        .to_toml()
        .replace("[data.loader]", "[data.loader]\nseed = 4");
    let error = toml::from_str::<TrainConfig>(&text)
        .unwrap_err()
        .to_string();
    assert!(error.contains("set the run's `seed`"), "{error}");
    assert!(matches!(
        resolve("demo", &["data.loader.seed=4"]),
        Err(ConfigError::UnknownKey { key, .. }) if key == "data.loader.seed"
    ));
}

#[test]
fn a_new_optimizer_brings_its_own_defaults() {
    let resolved = resolve(
        "demo",
        &["optimizer.trust_coefficient=0.02", "optimizer.name=lars"],
    );
    // The weight decay is the one that the preset writes out: LARS has that key too.
    let expected = LarsConfig {
        trust_coefficient: 0.02,
        weight_decay: 5e-4,
        ..LarsConfig::default()
    };
    assert_eq!(
        resolved.unwrap().config.optimizer,
        OptimizerConfig::Lars(expected)
    );

    let error = error(&["optimizer.trust_coefficient=0.02"]);
    assert!(matches!(error, ConfigError::UnknownKey { .. }), "{error}");

    // LARS's own key cannot stay, momentum and weight decay can.
    let back = resolve("simclr-imagenet-r50", &["optimizer.name=sgd"]).unwrap();
    assert_eq!(
        back.config.optimizer,
        OptimizerConfig::Sgd(SgdConfig::default())
    );
}

#[test]
fn a_new_recipe_brings_its_own_defaults_and_keeps_what_was_set() {
    let resolved = resolve("demo", &["data.recipe.hue=0.05", "data.recipe.name=cifar"]).unwrap();
    let recipe = resolved.config.data.recipe;
    assert_eq!(recipe.hue, Some(0.05));
    assert_eq!(recipe.saturation, Some(0.4));
    assert_eq!(recipe.grayscale_probability, Some(0.2));
    assert_eq!(recipe.image_size, 24);
}

#[test]
fn settings_that_do_not_fit_are_refused_with_a_way_out() {
    for (typed, message, hint) in [
        (
            "method.negative_count=128",
            "[method] negative_count: SiMo cannot have 128 negatives a query with a batch of 64; \
             the nearest that it can have is 63",
            "--negatives",
        ),
        (
            "device=cuda",
            "`device`: this build has no CUDA",
            "--device",
        ),
        (
            "threads=99999",
            "`threads`: expected at most 1024, got 99999",
            "one a core",
        ),
        (
            "backend=cuda",
            "`backend`: this build has no CUDA kernels",
            "--backend",
        ),
        (
            "encoder.stem=imagenet",
            "`data.recipe.image_size`: the stem needs at least 32 pixels, got 24",
            "--stem cifar",
        ),
        (
            "data.evaluation_scale=0.3",
            "`data.evaluation_scale`: expected a number from 0.5 to 4, got 0.3",
            "1 evaluates",
        ),
        (
            "data.augment_on=device",
            "`data.augment_on`: `device` has the GPU that trains make the views, and this run trains on the cpu",
            "--device cuda:0",
        ),
        (
            "data.recipe.name=eval",
            "`data.recipe.name`: `eval` makes both views the same, so that there is nothing to learn",
            "fashion",
        ),
        (
            "loss.temperature=0",
            "[loss] temperature must be a finite number above 0, got 0",
            "--temperature",
        ),
        (
            "schedule.warmup_epochs=1000",
            "[schedule] warmup_epochs must be less than epochs, got 1000 of ",
            "schedule.warmup_epochs=0",
        ),
        (
            "data.loader.drop_last=false",
            "`data.loader.drop_last`: a last batch that is smaller may have too few negatives",
            "leave it true",
        ),
        (
            "run.log_every_steps=0",
            "`run.log_every_steps`: expected at least 1, got 0",
            "from 1 on",
        ),
    ] {
        let error = error(&[typed]);
        assert!(error.to_string().starts_with(message), "{typed}: {error}");
        let found = error.hint().unwrap();
        assert!(found.contains(hint), "{typed}: {found}");
    }
}

#[test]
fn a_seed_that_toml_cannot_hold_is_refused() {
    let mut config = Preset::named("demo").unwrap().config().unwrap();
    config.seed = i64::MAX as u64;
    config.validate().unwrap();
    config.seed += 1;
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "`seed`: expected a number below 2^63, got 9223372036854775808"
    );
}

#[test]
fn the_shown_configuration_names_origins_and_reads_back() {
    let resolved = resolve("demo", &["loss.alpha=infonce", "seed=3"]).unwrap();
    let text = resolved.annotated_toml();
    let line = |start: &str| {
        text.lines()
            .find(|line| line.starts_with(start))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        line("alpha"),
        format!("{:<40} # --set", "alpha = \"infonce\"")
    );
    assert_eq!(line("seed"), format!("{:<40} # --set", "seed = 3"));
    assert_eq!(line("embedding_dim"), "embedding_dim = 128");
    assert_eq!(line("format"), "format = \"auto\"");
    assert_eq!(line("mean"), "mean = [0.286, 0.286, 0.286]");
    let path = file(&text);
    let again = Resolved::new("simclr-imagenet-r50", Some(&path.path), Vec::new()).unwrap();
    assert_eq!(again.config, resolved.config);
}
