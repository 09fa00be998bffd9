//! The exact position in a run, to resume at.

use serde::{Deserialize, Serialize};

/// Which batch comes next. With the data set, the recipes and the loader's seed it determines
/// every pixel that follows; nothing else of the loader needs to be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Epoch, from 0.
    pub epoch: u64,
    /// The next batch of that epoch, from 0, below the number of batches per epoch.
    pub next_batch: u64,
}

impl Cursor {
    /// Moves on by one batch, into the next epoch after the last of `batches_per_epoch`.
    pub fn advance(&mut self, batches_per_epoch: u64) {
        self.next_batch += 1;
        if self.next_batch >= batches_per_epoch {
            *self = Self {
                epoch: self.epoch + 1,
                next_batch: 0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advances_through_epochs() {
        let mut cursor = Cursor::default();
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push((cursor.epoch, cursor.next_batch));
            cursor.advance(2);
        }
        assert_eq!(seen, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]);
    }
}
