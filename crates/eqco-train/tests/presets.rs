//! The presets: complete, described, and with the figures of their papers.

use eqco_core::{Alpha, DrawKind};
use eqco_data::recipe::RecipeName;
use eqco_models::method::MethodName;
use eqco_models::optim::{LearningRateScaling, OptimizerConfig, Schedule, ScheduleKind, SgdConfig};
use eqco_models::{Architecture, HeadKind, Stem};
use eqco_train::config::{Preset, Resolved, TrainConfig, known_keys};

#[test]
fn unknown_presets_name_the_nearest() {
    let error = Preset::named("simo-cifar").unwrap_err();
    assert_eq!(error.to_string(), "no preset is called `simo-cifar`");
    let hint = error.hint().unwrap();
    assert!(hint.starts_with("did you mean `simo-cifar-r18`?"), "{hint}");
}

#[test]
fn every_preset_is_valid_described_and_survives_a_round_trip() {
    for preset in Preset::all() {
        let resolved = Resolved::new(preset.name, None, Vec::new()).unwrap();
        let again: TrainConfig = toml::from_str(&resolved.config.to_toml()).unwrap();
        assert_eq!(again, resolved.config, "{}", preset.name);
        let description = preset.description().join("\n");
        for part in ["Expected: ", "Hardware: ", "Source: "] {
            assert!(
                description.contains(part),
                "{}: no line `{part}`",
                preset.name
            );
        }
    }
}

#[test]
fn no_key_vanishes_from_the_written_configuration() {
    for preset in Preset::all() {
        let config = Resolved::new(preset.name, None, Vec::new()).unwrap().config;
        let written: toml::Table = toml::from_str(&config.to_toml()).unwrap();
        for key in known_keys(&config) {
            let mut parts = key.split('.');
            let first = written.get(parts.next().unwrap());
            let value = parts.try_fold(first.unwrap(), |value, part| value.get(part));
            assert!(value.is_some(), "{}: {key}", preset.name);
        }
    }
}

#[test]
fn the_imagenet_presets_have_the_papers_figures() {
    let get = |name| Preset::named(name).unwrap().config().unwrap();
    let simo = get("simo-imagenet-r50");
    let moco = get("mocov2-imagenet-r50");
    let simclr = get("simclr-imagenet-r50");
    for config in [&simo, &moco, &simclr] {
        assert_eq!(config.encoder.architecture, Architecture::Resnet50);
        assert_eq!(
            (config.encoder.width, config.encoder.stem),
            (64, Stem::Imagenet)
        );
        assert_eq!(
            (config.data.loader.batch_size, config.data.recipe.image_size),
            (256, 224)
        );
        assert_eq!(
            (config.schedule.epochs, config.schedule.kind),
            (200, ScheduleKind::Cosine)
        );
        let head = config.projection_head;
        assert_eq!((head.hidden_dim, head.embedding_dim), (0, 128));
    }

    let sgd = OptimizerConfig::Sgd(SgdConfig {
        sgd_momentum: 0.9,
        weight_decay: 1e-4,
        nesterov: false,
        exclude_norm_and_bias_from_weight_decay: false,
    });
    for config in [&simo, &moco] {
        assert_eq!(config.optimizer, sgd);
        assert_eq!(config.method.ema_coefficient, 0.999);
        assert_eq!(config.loss.temperature, 0.2);
        assert_eq!(config.data.recipe.name, RecipeName::MocoV2);
        let peak = |batch| Schedule::new(&config.schedule, batch).unwrap().peak();
        assert_eq!((peak(256), peak(512)), (0.03, 0.06));
    }

    assert_eq!(simo.method.name, MethodName::Simo);
    assert_eq!(
        (simo.method.negative_count, simo.method.draw),
        (16, DrawKind::SharedColumns)
    );
    assert_eq!(simo.loss.alpha, Alpha::Equivalent(256.0));
    assert_eq!(simo.projection_head.kind, HeadKind::BatchNormMlp);
    assert_eq!(
        (simo.method.batch_norm_group, simo.schedule.warmup_epochs),
        (0, 10.0)
    );

    assert_eq!(moco.method.name, MethodName::MocoV2);
    assert_eq!(
        (moco.method.negative_count, moco.method.batch_norm_group),
        (65_536, 32)
    );
    assert_eq!(moco.loss.alpha, Alpha::Infonce);
    assert_eq!(
        (moco.projection_head.kind, moco.schedule.warmup_epochs),
        (HeadKind::Mlp, 0.0)
    );

    assert_eq!(
        (simclr.method.name, simclr.method.negative_count),
        (MethodName::Simclr, 0)
    );
    assert_eq!(simclr.method.negatives_per_query(256), 510);
    assert_eq!(
        (simclr.loss.temperature, simclr.loss.alpha),
        (0.1, Alpha::Infonce)
    );
    assert_eq!(simclr.projection_head.kind, HeadKind::BatchNormMlp);
    assert_eq!(simclr.data.recipe.name, RecipeName::Simclr);
    assert_eq!(simclr.schedule.scaling, LearningRateScaling::SquareRoot);
    let peak = |batch| Schedule::new(&simclr.schedule, batch).unwrap().peak();
    assert!((peak(256) - 1.2).abs() < 1e-12 && (peak(4096) - 4.8).abs() < 1e-12);
    let OptimizerConfig::Lars(lars) = simclr.optimizer else {
        panic!("SimCLR trains with LARS")
    };
    assert_eq!(
        (lars.trust_coefficient, lars.weight_decay, lars.sgd_momentum),
        (0.001, 1e-4, 0.9)
    );
    assert!(
        lars.exclude_norm_and_bias_from_weight_decay && lars.exclude_norm_and_bias_from_scaling
    );
}

#[test]
fn the_small_presets_are_simo_with_sixteen_negatives_worth_256() {
    for (name, pixels) in [("demo", (24, 28)), ("simo-cifar-r18", (32, 32))] {
        let config = Preset::named(name).unwrap().config().unwrap();
        assert_eq!(
            (config.method.name, config.method.negative_count),
            (MethodName::Simo, 16)
        );
        assert_eq!(config.loss.alpha, Alpha::Equivalent(256.0));
        assert_eq!(
            (config.encoder.architecture, config.encoder.stem),
            (Architecture::Resnet18, Stem::Cifar)
        );
        let evaluated = config.data.evaluation_image_size();
        assert_eq!((config.data.recipe.image_size, evaluated), pixels);
        assert!(config.run.final_table);
    }
}
