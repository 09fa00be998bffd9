//! Which checkpoints stay when a new one is there.

use crate::config::RunConfig;

/// The rule of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many; 0 for all.
    last: usize,
    /// Those at multiples of so many steps; 0 for none.
    every_steps: u64,
}

impl Keep {
    /// The rule of `run`, whose epochs have `steps_per_epoch` steps.
    pub fn new(run: &RunConfig, steps_per_epoch: u64) -> Self {
        Self {
            last: run.keep_last_checkpoints,
            every_steps: run
                .keep_checkpoint_every_epochs
                .saturating_mul(steps_per_epoch),
        }
    }

    /// The steps of `there`, in any order, that may go now that the checkpoint of `newest` is on the disk. What is newer than
    /// that is none of this run's.
    pub fn expendable(&self, there: &[u64], newest: u64) -> Vec<u64> {
        let mut older: Vec<u64> = there
            .iter()
            .copied()
            .filter(|step| *step <= newest)
            .collect();
        older.sort_unstable();
        let kept = if self.last == 0 {
            older.len()
        } else {
            self.last
        };
        older.truncate(older.len().saturating_sub(kept));
        let stays = |step: &u64| self.every_steps > 0 && step.is_multiple_of(self.every_steps);
        older.retain(|step| !stays(step));
        older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expendable(last: usize, every_epochs: u64, newest: u64) -> Vec<u64> {
        let run = RunConfig {
            keep_last_checkpoints: last,
            keep_checkpoint_every_epochs: every_epochs,
            ..RunConfig::default()
        };
        Keep::new(&run, 5).expendable(&[20, 3, 5, 10, 12, 15], newest)
    }

    #[test]
    fn the_last_ones_and_every_mth_stay() {
        assert_eq!(expendable(2, 0, 20), [3, 5, 10, 12]);
        assert_eq!(expendable(2, 2, 20), [3, 5, 12]);
        assert_eq!(expendable(1, 1, 20), [3, 12]);
        assert_eq!(expendable(0, 0, 20), [0u64; 0]);
        assert_eq!(expendable(9, 0, 20), [0u64; 0]);
        // The checkpoint of step 20 has not been written by this run.
        assert_eq!(expendable(2, 0, 12), [3, 5]);
    }
}
