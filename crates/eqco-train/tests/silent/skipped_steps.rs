//! A step that is skipped leaves everything as it was, in every method.

use candle_core::{DType, Tensor};
use eqco_data::loader::{Batch, Loader};
use eqco_data::recipe::Recipe;
use eqco_data::{Split, limited, open};
use eqco_models::checkpoint::Checkpoint;
use eqco_train::config::{Resolved, TrainConfig, read_assignment};
use eqco_train::nonfinite::Nonfinite;
use eqco_train::step::Trainer;

const COMMON: [&str; 12] = [
    "data.source=synthetic",
    "data.limit=48",
    "data.recipe.image_size=8",
    "encoder.width=2",
    "data.loader.batch_size=8",
    "projection_head.hidden_dim=8",
    "projection_head.embedding_dim=8",
    "schedule.warmup_epochs=0",
    "method.ema_coefficient=0.5",
    "run.on_nonfinite=skip",
    "threads=1",
    "winograd=false",
];

fn config(settings: &[&str]) -> TrainConfig {
    let settings = [&COMMON[..], settings].concat();
    let settings = settings
        .into_iter()
        .map(|text| read_assignment(text).unwrap());
    Resolved::new("demo", None, settings.collect())
        .unwrap()
        .config
}

fn batches(config: &TrainConfig) -> Vec<Batch> {
    let images = limited(open("synthetic", Split::Train).unwrap(), config.data.limit);
    let recipe = Recipe::new(config.data.recipe.clone()).unwrap();
    let views = vec![recipe.clone(), recipe];
    let loader = Loader::new(images, views, config.data.loader.clone()).unwrap();
    loader.epoch(0, 0).map(Result::unwrap).collect()
}

/// Every tensor of the state with its bits.
fn bits(checkpoint: &Checkpoint) -> Vec<(String, Vec<u64>)> {
    let bits = |tensor: &Tensor| -> Vec<u64> {
        let flat = tensor.flatten_all().unwrap();
        match tensor.dtype() {
            DType::F32 => flat
                .to_vec1::<f32>()
                .unwrap()
                .iter()
                .map(|v| u64::from(v.to_bits()))
                .collect(),
            DType::I64 => flat
                .to_vec1::<i64>()
                .unwrap()
                .iter()
                .map(|v| *v as u64)
                .collect(),
            other => panic!("no state is of {other:?}"),
        }
    };
    checkpoint
        .tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), bits(tensor)))
        .collect()
}

/// The same state with a NaN in the first convolution.
fn poisoned(checkpoint: &Checkpoint) -> Checkpoint {
    let mut poisoned = checkpoint.clone();
    let weight = poisoned
        .tensors
        .iter_mut()
        .find(|(name, _)| name == "encoder.backbone.conv1.weight");
    let (_, weight) = weight.unwrap();
    let mut values = weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values[5] = f32::NAN;
    *weight = Tensor::from_vec(values, weight.dims(), weight.device()).unwrap();
    poisoned
}

const METHODS: [&[&str]; 6] = [
    &["method.name=simo", "method.negative_count=4"],
    &[
        "method.name=simo",
        "method.negative_count=4",
        "method.micro_batch=4",
        "optimizer.name=adamw",
    ],
    // A queue that a batch wraps around, one that is overwritten whole, and one of several batches.
    &["method.name=moco_v2", "method.negative_count=11"],
    &[
        "method.name=moco_v2",
        "method.negative_count=5",
        "method.batch_norm_group=4",
    ],
    &[
        "method.name=moco_v2",
        "method.negative_count=64",
        "optimizer.name=lars",
    ],
    &[
        "method.name=simclr",
        "method.negative_count=0",
        "method.micro_batch=4",
    ],
];

#[test]
fn skipping_leaves_weights_optimiser_momentum_encoder_and_queue_to_the_bit() {
    for settings in METHODS {
        let config = config(settings);
        let batches = batches(&config);
        let mut trainer = Trainer::new(&config, 6).unwrap();
        for batch in &batches[..2] {
            let report = trainer.step(batch).unwrap();
            assert!(report.skipped.is_none());
            let norms = report.gradient_norms.unwrap().wait().unwrap();
            assert!(norms.iter().all(|norm| norm.is_finite()), "{settings:?}");
        }
        let good = trainer.to_checkpoint(0, "test").unwrap();
        trainer.restore(&poisoned(&good)).unwrap();
        let before = trainer.to_checkpoint(0, "test").unwrap();
        let report = trainer.step(&batches[2]).unwrap();
        let found = report.skipped.unwrap();
        assert!(found.statistics.loss.is_nan(), "{settings:?}: {found}");
        assert_eq!(found.step, 2);
        let after = trainer.to_checkpoint(0, "test").unwrap();
        assert_eq!(after.metadata.step, 3, "{settings:?}");
        let (before, after) = (bits(&before), bits(&after));
        assert!(before.len() > 60, "{}", before.len());
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before, after, "{settings:?}");
        }
        assert_eq!(before.len(), after.len());

        // With sound weights it goes on as a run that has never seen the batch.
        trainer
            .restore(&Checkpoint {
                metadata: with_step(&good, 3),
                ..good.clone()
            })
            .unwrap();
        let mut other = Trainer::new(&config, 6).unwrap();
        other
            .restore(&Checkpoint {
                metadata: with_step(&good, 3),
                ..good.clone()
            })
            .unwrap();
        for batch in &batches[3..5] {
            assert!(trainer.step(batch).unwrap().skipped.is_none());
            assert!(other.step(batch).unwrap().skipped.is_none());
        }
        let states =
            [&trainer, &other].map(|trainer| bits(&trainer.to_checkpoint(0, "test").unwrap()));
        assert_eq!(states[0], states[1], "{settings:?}");
    }
}

fn with_step(checkpoint: &Checkpoint, step: u64) -> eqco_models::checkpoint::CheckpointMetadata {
    let mut metadata = checkpoint.metadata.clone();
    metadata.step = step;
    metadata
}

#[test]
fn stopping_leaves_weights_and_optimiser_and_names_the_step() {
    let mut config = config(METHODS[0]);
    config.run.on_nonfinite = eqco_train::nonfinite::OnNonfinite::Stop;
    let batches = batches(&config);
    let mut trainer = Trainer::new(&config, 6).unwrap();
    trainer.step(&batches[0]).unwrap();
    let state = poisoned(&trainer.to_checkpoint(0, "test").unwrap());
    trainer.restore(&state).unwrap();
    let found: Nonfinite = trainer.step(&batches[1]).unwrap_err().downcast().unwrap();
    assert_eq!(found.step, 1);
    assert!(found.gradient_norm.unwrap().is_nan());
    // The last layer is the first to get a gradient.
    let first = found.first_gradient.unwrap();
    assert!(first.starts_with("projection_head."), "{first}");
    let after = trainer.to_checkpoint(0, "test").unwrap();
    assert_eq!(after.metadata.step, 1);
    let of = |checkpoint: &Checkpoint| {
        let all = bits(checkpoint).into_iter();
        all.filter(|(name, _)| {
            name.starts_with("optimizer.")
                || (name.starts_with("encoder.") && !name.contains("running"))
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(of(&state), of(&after));
    // A state with NaN is never written as a checkpoint.
    let message = after.ensure_finite().unwrap_err().to_string();
    assert!(
        message.starts_with("saved state, tensor encoder.backbone.conv1.weight: expected finite numbers, found NaN or infinity"),
        "{message}"
    );
}
