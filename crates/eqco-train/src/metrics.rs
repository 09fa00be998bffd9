//! The records of `metrics.jsonl`. What depends on the clock stands under `timing`, so that the rest of two runs of
//! the same configuration can be compared byte by byte.

use eqco_core::BatchStatistics;
use eqco_eval::Geometry;
use serde::Serialize;

use crate::collapse::Alarm;
use crate::machine::Machine;
use crate::nonfinite::{Exact, OnNonfinite};

/// One line of `metrics.jsonl`; `kind` tells which.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The first line: what ran, on what.
    Run(RunRecord),
    /// One training step.
    Step(StepRecord),
    /// One finished epoch.
    Epoch(EpochRecord),
    /// kNN on a few images while the run trains.
    Knn(KnnRecord),
    /// A checkpoint has been written.
    Checkpoint(CheckpointRecord),
    /// A step's loss or gradient was not finite.
    Nonfinite(NonfiniteRecord),
    /// The embeddings have collapsed; once a run for each figure that shows it.
    Collapse(Alarm),
    /// The last line of a run that ended in order, with its evaluation.
    End(EndRecord),
}

/// What ran, on what.
#[derive(Clone, Debug, Serialize)]
pub struct RunRecord {
    /// Version of this crate.
    pub version: &'static str,
    /// Commit that was built, with `-dirty` behind it if files had changed; "unknown" outside of a clone.
    pub commit: &'static str,
    /// The preset that the configuration started from.
    pub preset: &'static str,
    /// Seed of everything random.
    pub seed: u64,
    /// Name of the data set.
    pub data_set: String,
    /// Training images in use.
    pub train_images: usize,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Trainable parameters of the encoder.
    pub parameters: usize,
    /// Negatives that a query really has.
    pub negative_count: usize,
    /// Older keys of its own image that a query meets in the queue on average, once that is full.
    pub own_keys_expected: f64,
    /// The loss in nats while all similarities are equal, see [`eqco_core::chance_loss`].
    pub chance_loss: f64,
    /// Device in use.
    pub device: String,
    /// Kernel family in use.
    pub backend: String,
    /// Number format of activations.
    pub precision: String,
    /// Threads of the kernels.
    pub threads: usize,
    /// Processes that share every batch.
    pub ranks: usize,
    /// The hardware.
    pub machine: Machine,
}

/// One training step.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepRecord {
    /// Steps done before this one, over the whole run.
    pub step: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// What the loss says about the batch.
    #[serde(flatten)]
    pub statistics: BatchStatistics,
    /// The same as in the first line, for whoever reads events alone.
    #[serde(skip)]
    pub chance_loss: f64,
    /// How the embeddings lie, every `run.geometry_every_steps` steps.
    #[serde(flatten)]
    pub geometry: Option<Geometry>,
    /// The norm of all gradients, where it has been looked at: in every step on a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// How many keys of its own image a query meets in MoCo's queue, on average over the batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_keys: Option<f64>,
    /// Where the time went.
    pub timing: Timing,
}

/// One finished epoch.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EpochRecord {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Steps done so far, over the whole run.
    pub step: u64,
    /// Mean loss in nats.
    pub loss: f64,
    /// Mean share of queries, 0 to 1, whose positive is the most similar key.
    pub contrast_top1: f64,
    /// Mean gradient scale, 0 to 1.
    pub gradient_scale: f64,
    /// Mean guaranteed bound on mutual information, in nats.
    pub guaranteed_bound: f64,
    /// Distinct unreadable images so far; with several ranks those that rank 0 has met.
    pub skipped_images: usize,
    /// Where the time went.
    pub timing: Timing,
}

/// kNN on a few images while the run trains.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KnnRecord {
    /// The epoch that has ended, from 0.
    pub epoch: u64,
    /// Steps done so far, over the whole run.
    pub step: u64,
    /// Top-1 in percent.
    pub knn_top1: f64,
    /// Images that voted.
    pub train_images: usize,
    /// Images that were classified.
    pub test_images: usize,
}

/// A checkpoint has been written.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointRecord {
    /// Steps that it has seen.
    pub step: u64,
    /// File name within the run folder's `checkpoints/`.
    pub file: String,
}

/// A step whose loss or gradient was not finite.
#[derive(Clone, Debug, Serialize)]
pub struct NonfiniteRecord {
    /// Steps done before it, over the whole run.
    pub step: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// What became of the run.
    pub action: OnNonfinite,
    /// Its loss.
    pub loss: Exact,
    /// The norm of its gradients, where it has been looked at.
    pub gradient_norm: Option<Exact>,
    /// Steps that have been skipped so far, this one included.
    pub skipped_steps: u64,
    /// The file in the run folder that `eqco-train replay` takes.
    pub dump: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EndRecord {
    /// Steps done.
    pub step: u64,
    /// Whether all epochs were done; otherwise the run was asked to stop.
    pub finished: bool,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// Wall-clock time, waiting included.
    pub seconds: f64,
    /// Time spent waiting for the loader.
    pub data_wait_seconds: f64,
    /// Training images a second.
    pub images_per_second: f64,
}

impl Timing {
    /// The timing of `images` images.
    pub fn new(images: usize, seconds: f64, data_wait_seconds: f64) -> Self {
        let images_per_second = if seconds > 0.0 {
            images as f64 / seconds
        } else {
            0.0
        };
        Self {
            seconds,
            data_wait_seconds,
            images_per_second,
        }
    }

    /// Share of the time, 0 to 1, spent waiting for the loader.
    pub fn data_wait_share(&self) -> f64 {
        if self.seconds > 0.0 {
            self.data_wait_seconds / self.seconds
        } else {
            0.0
        }
    }
}

/// The commit that was built, see [`RunRecord::commit`].
pub const COMMIT: &str = env!("EQCO_COMMIT");
