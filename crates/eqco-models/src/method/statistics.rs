//! What a batch's loss says, and when: on a GPU it is computed long after it has been asked for.

use candle_core::Tensor;
use eqco_core::{BatchStatistics, LossError, LossOutput, PendingFigures, PendingLoss};

/// The statistics of one batch.
#[derive(Debug)]
#[must_use]
pub struct Statistics(Vec<Part>);

/// Those of a micro-batch, or of all.
#[derive(Debug)]
enum Part {
    Known(BatchStatistics),
    Pending(PendingFigures),
}

impl Statistics {
    /// Statistics that are there.
    pub fn known(statistics: BatchStatistics) -> Self {
        Self(vec![Part::Known(statistics)])
    }

    /// The statistics of a batch from those of its parts of equal size.
    pub(super) fn of_equal_parts(parts: Vec<Self>) -> Self {
        Self(parts.into_iter().flat_map(|part| part.0).collect())
    }

    /// Whether [`Self::wait`] has to wait for no device.
    pub fn are_known(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Known(_)))
    }

    /// What [`Self::wait`] gives, which is known from then on.
    ///
    /// # Errors
    /// When work on the device has failed.
    pub fn known_after_waiting(&mut self) -> Result<BatchStatistics, LossError> {
        let known = std::mem::replace(self, Self(Vec::new())).wait()?;
        *self = Self::known(known);
        Ok(known)
    }

    /// The statistics over the whole batch, once the device has come so far.
    ///
    /// # Errors
    /// When work on the device has failed.
    pub fn wait(self) -> Result<BatchStatistics, LossError> {
        let parts = self.0.into_iter().map(|part| match part {
            Part::Known(statistics) => Ok(statistics),
            Part::Pending(figures) => Ok(figures.wait()?.0),
        });
        match parts.collect::<Result<Vec<_>, LossError>>()?.as_slice() {
            [] => Err(LossError::NoNegatives),
            [whole] => Ok(*whole),
            parts => Ok(BatchStatistics::of_equal_parts(parts)),
        }
    }
}

impl From<PendingFigures> for Statistics {
    fn from(figures: PendingFigures) -> Self {
        Self(vec![Part::Pending(figures)])
    }
}

/// What a method needs of a loss, on any device.
pub(super) struct Evaluated {
    pub(super) queries_gradient: Tensor,
    pub(super) keys_gradient: Option<Tensor>,
    pub(super) statistics: Statistics,
}

impl From<LossOutput> for Evaluated {
    fn from(output: LossOutput) -> Self {
        Self {
            queries_gradient: output.queries_gradient,
            keys_gradient: output.keys_gradient,
            statistics: Statistics::known(output.statistics),
        }
    }
}

impl From<PendingLoss> for Evaluated {
    fn from(pending: PendingLoss) -> Self {
        Self {
            queries_gradient: pending.queries_gradient,
            keys_gradient: pending.keys_gradient,
            statistics: pending.figures.into(),
        }
    }
}
