//! What a checkpoint holds of the loop around the steps: with it a run goes on as if it had never stopped.

use std::collections::BTreeSet;

use eqco_data::Dataset;
use eqco_models::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};

use crate::collapse::CollapseState;
use crate::epoch::EpochSums;
use crate::journal::JournalLength;

/// Everything beside tensors, configuration and step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopState {
    /// The preset that the configuration started from.
    pub preset: String,
    /// What the run is trained on.
    pub images: ImagesSeen,
    /// Processes that share every batch.
    pub ranks: usize,
    /// Sums over the steps of the epoch in hand.
    pub epoch: EpochSums,
    /// Distinct unreadable images so far; those that rank 0 has met.
    pub skipped_images: BTreeSet<u32>,
    /// kNN top-1 in percent as last measured while training.
    pub knn_top1: Option<f64>,
    /// How much metrics and events have been written.
    pub journal: JournalLength,
    /// Steps that were not finite and have been skipped.
    #[serde(default)]
    pub skipped_steps: u64,
    /// What the alarm for collapsed embeddings has seen.
    #[serde(default)]
    pub collapse: CollapseState,
}

impl LoopState {
    /// That of a checkpoint, or why there is none.
    ///
    /// # Errors
    /// What is there instead.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, String> {
        let progress = &checkpoint.metadata.progress;
        if progress.is_null() {
            return Err(
                "a checkpoint without the state of a run: that of a version that could not resume, or of fine-tuning"
                    .to_owned(),
            );
        }
        Self::deserialize(progress).map_err(|error| error.to_string())
    }
}

/// What tells other training images from the same ones, wherever they lie and in whatever format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesSeen {
    /// How many there are.
    pub count: usize,
    /// CRC-32C of their labels in order; of nothing where there are none.
    pub labels: u32,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
}

impl ImagesSeen {
    /// Those of a data set in epochs of so many steps.
    pub fn of(dataset: &dyn Dataset, steps_per_epoch: u64) -> Self {
        let labels = (0..dataset.len()).map_while(|index| dataset.label(index));
        let labels = labels.fold(0, |crc, label| {
            crc32c::crc32c_append(crc, &label.to_le_bytes())
        });
        Self {
            count: dataset.len(),
            labels,
            steps_per_epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use eqco_data::{Split, limited, open};

    use super::*;

    #[test]
    fn other_images_are_told_by_their_number_and_their_labels() {
        let all = open("synthetic", Split::Train).unwrap();
        let seen = |count| ImagesSeen::of(&*limited(all.clone(), count), 3);
        assert_eq!(seen(40), seen(40));
        assert_ne!(seen(40).count, seen(50).count);
        assert_ne!(seen(40).labels, seen(50).labels);
        assert_ne!(
            seen(40).labels,
            ImagesSeen::of(&*open("embedded", Split::Test).unwrap(), 3).labels
        );
    }
}
