//! What an epoch adds up to: means of its figures, and where its time went.

use std::time::Duration;

use eqco_core::BatchStatistics;
use serde::{Deserialize, Serialize};

use super::{EpochContext, Position};
use crate::metrics::Timing;
use crate::progress::Standing;

/// Sums and times of the steps of one epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochTotals {
    /// Over all of its steps, whichever process has done them.
    pub sums: EpochSums,
    /// That of this process.
    pub time: EpochTime,
}

/// Sums over the steps of an epoch. A checkpoint within the epoch holds them to the bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochSums {
    pub(super) steps: u64,
    #[serde(with = "bits")]
    pub(super) loss: f64,
    #[serde(with = "bits")]
    pub(super) contrast_top1: f64,
    #[serde(with = "bits")]
    pub(super) gradient_scale: f64,
    #[serde(with = "bits")]
    pub(super) guaranteed_bound: f64,
}

/// Numbers as the integers that have their bits: JSON has neither infinities nor NaN, and a checkpoint that could be written
/// must be readable.
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        value.to_bits().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

/// Steps of an epoch that one process has done, and their time.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochTime {
    steps: u64,
    images: usize,
    elapsed: Duration,
    data_wait: Duration,
}

impl EpochTime {
    /// Steps done, and their time with all waiting.
    pub fn steps_and_time(&self) -> (u64, Duration) {
        (self.steps, self.elapsed)
    }
}

impl EpochTotals {
    pub(super) fn add(
        &mut self,
        images: usize,
        statistics: &BatchStatistics,
        elapsed: Duration,
        data_wait: Duration,
    ) {
        let Self { sums, time } = self;
        sums.steps += 1;
        sums.loss += statistics.loss;
        sums.contrast_top1 += statistics.contrast_top1;
        sums.gradient_scale += statistics.gradient_scale;
        sums.guaranteed_bound += statistics.guaranteed_bound;
        time.steps += 1;
        time.images += images;
        time.elapsed += elapsed;
        time.data_wait += data_wait;
    }

    /// Mean loss in nats; NaN where no step has been taken.
    pub fn loss(&self) -> f64 {
        self.sums.loss / self.sums.steps as f64
    }

    /// Mean contrast top-1, 0 to 1; NaN where no step has been taken.
    pub fn contrast_top1(&self) -> f64 {
        self.sums.contrast_top1 / self.sums.steps as f64
    }

    /// Mean gradient scale, 0 to 1; NaN where no step has been taken.
    pub fn gradient_scale(&self) -> f64 {
        self.sums.gradient_scale / self.sums.steps as f64
    }

    /// Mean guaranteed bound on mutual information in nats; NaN where no step has been taken.
    pub fn guaranteed_bound(&self) -> f64 {
        self.sums.guaranteed_bound / self.sums.steps as f64
    }

    /// Where the time went, in this process.
    pub fn timing(&self) -> Timing {
        Timing::new(
            self.time.images,
            self.time.elapsed.as_secs_f64(),
            self.time.data_wait.as_secs_f64(),
        )
    }

    /// The figures for the display.
    pub fn standing(&self, position: &Position, context: &EpochContext<'_>) -> Standing {
        let started = context.started;
        let timing = self.timing();
        let last_step = position.next_step.saturating_sub(1);
        let done = position.next_step.saturating_sub(started.1).max(1);
        let left = position.total_steps().saturating_sub(position.next_step);
        Standing {
            epoch: last_step / position.steps_per_epoch + 1,
            epochs: position.epochs,
            step: last_step % position.steps_per_epoch + 1,
            steps: position.steps_per_epoch,
            loss: self.loss(),
            chance_loss: context.chance_loss,
            contrast_top1: self.contrast_top1(),
            gradient_scale: self.gradient_scale(),
            guaranteed_bound: self.guaranteed_bound(),
            knn_top1: context.knn_top1,
            images_per_second: timing.images_per_second,
            data_wait_share: timing.data_wait_share(),
            elapsed: self.time.elapsed,
            remaining: started.0.elapsed().mul_f64(left as f64 / done as f64),
        }
    }
}
