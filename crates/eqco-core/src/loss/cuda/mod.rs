//! The fused loss on a GPU.
//!
//! `operands` brings the inputs into one element type; `shared` or `gathered` sweeps over the negatives and leaves sums for each
//! query and split of the negatives; `outcome` joins the splits and leaves losses, the gradient of the queries and what further
//! gradients need; `gradient` computes those. One copy of eight numbers back to the host ends it, for which `pending` lets the
//! host wait when it likes.
//!
//! Similarities are never written: memory is that of inputs and outputs, and of weighted keys in f32 for at most
//! [`split::MOST_BLOCKS`] blocks of rows more. Nothing is added in an order that a run decides, so that results are equal to
//! the bit on every device.
//!
//! With bf16 inputs, shared negatives are multiplied on tensor cores and weights of the softmax are rounded to bf16 for their
//! product with the negatives: relative to the sum of `weight * |key|`, gradients are off by at most 2^-8, and by far less
//! where many keys share the weight. Losses and statistics do not depend on rounded weights. Where types differ, all are computed with
//! in f32.

mod gathered;
mod gradient;
mod memory;
mod nt_xent;
mod operands;
mod outcome;
mod pending;
mod shared;
mod split;
mod transposed;

use candle_core::{DType, Tensor};

use super::checks::{self, Home};
use super::{ContrastiveLoss, LossOutput, WantedGradients, autograd, tracked};
use crate::cuda::{KERNELS, Launch, Queue};
use crate::error::LossError;
use crate::margin::LossConfig;
use crate::negatives::{NegativeDraw, Negatives};
use memory::Memory;
pub use nt_xent::{enqueue_nt_xent, nt_xent_forward_on, nt_xent_on};
use operands::Format;
pub use outcome::PendingFigures;
pub use pending::PendingLoss;

/// Where the kernels of one evaluation run, and with what settings.
struct Stage<'a> {
    queue: &'a Queue,
    memory: &'a Memory,
    config: &'a LossConfig,
    format: Format,
}

impl Stage<'_> {
    /// # Safety
    /// That of [`Queue::launch`].
    unsafe fn launch(&self, launch: &Launch) -> Result<(), LossError> {
        // SAFETY: the caller's promise.
        let launched = unsafe { self.queue.launch(KERNELS, launch) };
        Ok(launched.map_err(candle_core::Error::from)?)
    }

    /// What turns similarities into exponents of 2.
    fn scale(&self) -> f32 {
        (std::f64::consts::LOG2_E / self.config.temperature) as f32
    }

    /// The kernel for the elements at hand.
    fn kernel(&self, for_f32: &'static str, for_bf16: &'static str) -> &'static str {
        match self.format.dtype {
            DType::BF16 => for_bf16,
            _ => for_f32,
        }
    }
}

impl ContrastiveLoss {
    /// [`Self::evaluate`] by the kernels of `queue`, on whose device all tensors must lie; so do the gradients.
    ///
    /// Values are those of [`Self::evaluate`] up to rounding. When queries, keys and negatives are all bf16, shared negatives
    /// go through tensor cores. The call waits for the device, to read the statistics; [`Self::enqueue`] does not.
    ///
    /// # Errors
    /// As [`Self::evaluate`], with [`LossError::OtherDevice`] for a tensor that the queue does not reach;
    /// [`LossError::Candle`] for what the device or its driver refuses.
    pub fn evaluate_on(
        &self,
        queue: &Queue,
        queries: &Tensor,
        keys: &Tensor,
        negatives: Negatives<'_>,
        wanted: WantedGradients,
    ) -> Result<LossOutput, LossError> {
        self.enqueue(queue, queries, keys, negatives, wanted)?
            .wait()
    }

    /// [`Self::evaluate_on`] without waiting for the device: gradients can be used by whatever is sent to the queue next, and
    /// the numbers be asked for later. Indices of drawn negatives are copied to the device in every call, 4 bytes each.
    ///
    /// # Errors
    /// As [`Self::evaluate_on`]; what fails on the device shows when it is waited for.
    pub fn enqueue(
        &self,
        queue: &Queue,
        queries: &Tensor,
        keys: &Tensor,
        negatives: Negatives<'_>,
        wanted: WantedGradients,
    ) -> Result<PendingLoss, LossError> {
        checks::inputs(Home::Queue(queue), queries, keys, negatives)?;
        let memory = Memory::on(queries.device());
        self.evaluate_in((queue, &memory), queries, keys, negatives, wanted)
    }

    /// [`Self::forward`] by the kernels of `queue`, on whose device all tensors must lie: a scalar f32 tensor there that
    /// candle's `backward` can follow. The gradients are computed here and now; candle scales them in its own stream for the
    /// device, so that both passes belong on the thread that made the queue.
    ///
    /// A queue loads its kernels to the device once: keep it as long as the loop that trains.
    ///
    /// # Errors
    /// As [`Self::evaluate_on`].
    pub fn forward_on(
        &self,
        queue: &Queue,
        queries: &Tensor,
        keys: &Tensor,
        negatives: Negatives<'_>,
    ) -> Result<Tensor, LossError> {
        let wanted = tracked(keys, negatives);
        let output = self.evaluate_on(queue, queries, keys, negatives, wanted)?;
        autograd::of_output(output, queries, keys, negatives)
    }

    fn evaluate_in(
        &self,
        place: (&Queue, &Memory),
        queries: &Tensor,
        keys: &Tensor,
        negatives: Negatives<'_>,
        wanted: WantedGradients,
    ) -> Result<PendingLoss, LossError> {
        match negatives {
            Negatives::Shared(negatives) => {
                self.with_shared(place, [queries, keys, negatives], wanted)
            }
            Negatives::InBatch(draw) => {
                self.with_drawn(place, [queries, keys, keys], (draw, 0), wanted.keys)
            }
            Negatives::InLargerBatch {
                draw,
                batch_keys,
                first,
            } => {
                // Only the whole batch knows what its keys do as negatives.
                self.with_drawn(place, [queries, keys, batch_keys], (draw, first), false)
            }
        }
    }

    fn with_shared(
        &self,
        (queue, memory): (&Queue, &Memory),
        inputs: [&Tensor; 3],
        wanted: WantedGradients,
    ) -> Result<PendingLoss, LossError> {
        let ([queries, keys, negatives], format) = operands::in_one_format(inputs)?;
        let stage = Stage {
            queue,
            memory,
            config: &self.config,
            format,
        };
        let partials = shared::sweep(&stage, &queries, &negatives, None)?;
        let pairs = outcome::Pairs {
            queries: &queries,
            keys: &keys,
            partner: 0,
            negative_count: negatives.rows,
        };
        let outcome = pairs.finish(&stage, &partials)?;
        let of_keys = wanted
            .keys
            .then(|| gradient::of_positives(&stage, &pairs, &outcome, None))
            .transpose()?;
        let of_negatives = wanted
            .negatives
            .then(|| gradient::of_shared(&stage, &negatives, &queries, &outcome))
            .transpose()?;
        output(&stage, inputs, (&pairs, &outcome), of_keys, of_negatives)
    }

    fn with_drawn(
        &self,
        (queue, memory): (&Queue, &Memory),
        inputs: [&Tensor; 3],
        (draw, first): (&NegativeDraw, usize),
        of_keys: bool,
    ) -> Result<PendingLoss, LossError> {
        let ([queries, keys, batch_keys], format) = operands::in_one_format(inputs)?;
        let stage = Stage {
            queue,
            memory,
            config: &self.config,
            format,
        };
        let partials = gathered::sweep(&stage, &queries, &batch_keys, (draw, first))?;
        let pairs = outcome::Pairs {
            queries: &queries,
            keys: &keys,
            partner: 0,
            negative_count: draw.negative_count(),
        };
        let outcome = pairs.finish(&stage, &partials)?;
        let of_keys = of_keys
            .then(|| {
                let as_negatives =
                    gathered::keys_gradient(&stage, &keys, &queries, draw, &outcome)?;
                gradient::of_positives(&stage, &pairs, &outcome, Some(&as_negatives))
            })
            .transpose()?;
        output(&stage, inputs, (&pairs, &outcome), of_keys, None)
    }
}

/// Gradients in the formats of the inputs, with the figures asked for.
fn output(
    stage: &Stage<'_>,
    [queries, keys, negatives]: [&Tensor; 3],
    (pairs, outcome): (&outcome::Pairs<'_>, &outcome::Outcome),
    of_keys: Option<Tensor>,
    of_negatives: Option<Tensor>,
) -> Result<PendingLoss, LossError> {
    let like = |gradient: Option<Tensor>, input: &Tensor| {
        gradient.map(|g| g.to_dtype(input.dtype())).transpose()
    };
    Ok(PendingLoss {
        queries_gradient: outcome.queries_gradient.to_dtype(queries.dtype())?,
        keys_gradient: like(of_keys, keys)?,
        negatives_gradient: like(of_negatives, negatives)?,
        figures: outcome.figures(stage, pairs.negative_count)?,
    })
}

#[cfg(test)]
mod tests;
