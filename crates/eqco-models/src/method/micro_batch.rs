//! A batch in parts: activations of one part at a time, gradients of all of them.

use candle_core::{Result, Tensor};

use super::MethodConfig;

/// Consecutive images of a batch that are encoded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MicroBatch {
    /// Place of the first image in the batch.
    pub(super) first: usize,
    /// Number of images.
    len: usize,
    /// Images of the whole batch.
    batch: usize,
}

impl MicroBatch {
    /// The parts of a batch of `batch` images, in order.
    pub(super) fn all(config: &MethodConfig, batch: usize) -> impl Iterator<Item = Self> + use<> {
        let len = match config.micro_batch {
            0 => batch.max(1),
            images => images,
        };
        (0..batch).step_by(len).map(move |first| Self {
            first,
            len: len.min(batch - first),
            batch,
        })
    }

    /// The rows of `tensor`, one an image of the batch, that belong to this part.
    pub(super) fn of(&self, tensor: &Tensor) -> Result<Tensor> {
        tensor.narrow(0, self.first, self.len)
    }

    /// The gradient of a mean over this part as its share in the gradient of the mean over the batch.
    pub(super) fn share_of(&self, gradient: &Tensor) -> Result<Tensor> {
        if self.len == self.batch {
            return Ok(gradient.clone());
        }
        gradient * (self.len as f64 / self.batch as f64)
    }
}
