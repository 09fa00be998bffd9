//! A loss whose numbers the host has not seen yet.

use candle_core::Tensor;

use super::LossOutput;
use super::outcome::PendingFigures;
use crate::error::LossError;

/// What [`crate::ContrastiveLoss::enqueue`] leaves on the device: gradients for whatever comes next in the queue, and figures
/// to be waited for. The fields are those of [`LossOutput`].
#[derive(Debug)]
#[must_use]
pub struct PendingLoss {
    /// Gradient with respect to the queries, `[N, D]`.
    pub queries_gradient: Tensor,
    /// Gradient with respect to the keys, `[N, D]`, when wanted.
    pub keys_gradient: Option<Tensor>,
    /// Gradient with respect to shared negatives, `[K, D]`, when wanted.
    pub negatives_gradient: Option<Tensor>,
    /// Loss and statistics.
    pub figures: PendingFigures,
}

impl PendingLoss {
    /// Waits for the figures.
    ///
    /// # Errors
    /// Those of [`PendingFigures::wait`].
    pub fn wait(self) -> Result<LossOutput, LossError> {
        let (statistics, temperature_gradient) = self.figures.wait()?;
        Ok(LossOutput {
            loss: statistics.loss,
            queries_gradient: self.queries_gradient,
            keys_gradient: self.keys_gradient,
            negatives_gradient: self.negatives_gradient,
            temperature_gradient,
            statistics,
        })
    }
}
