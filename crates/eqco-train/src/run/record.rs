//! The first line of the metrics: what runs, on what.

use eqco_core::chance_loss;

use crate::config::TrainConfig;
use crate::machine::Machine;
use crate::metrics::{COMMIT, RunRecord};
use crate::plan::{Plan, named};

pub(super) fn run_record(plan: &Plan, parameters: usize) -> RunRecord {
    let config = plan.config();
    let dataset = plan.loader.dataset();
    RunRecord {
        version: env!("CARGO_PKG_VERSION"),
        commit: COMMIT,
        preset: plan.resolved.preset,
        seed: config.seed,
        data_set: dataset.name().to_owned(),
        train_images: dataset.len(),
        steps_per_epoch: plan.position.steps_per_epoch,
        steps: plan.position.total_steps(),
        parameters,
        negative_count: config
            .method
            .negatives_per_query(config.data.loader.batch_size),
        own_keys_expected: plan.own_keys_expected(),
        chance_loss: chance(config),
        device: named(&config.device),
        backend: named(&config.backend),
        precision: named(&config.precision),
        threads: plan.threads,
        ranks: plan.ranks,
        machine: Machine::detect(),
    }
}

/// The loss of a run while all similarities are equal.
pub(super) fn chance(config: &TrainConfig) -> f64 {
    let negatives = config
        .method
        .negatives_per_query(config.data.loader.batch_size);
    chance_loss(config.loss.alpha, negatives)
}
