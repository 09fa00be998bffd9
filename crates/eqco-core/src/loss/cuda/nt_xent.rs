//! SimCLR's loss: both views are queries, and everything else in the batch is a negative.

use candle_core::Tensor;

use super::memory::Memory;
use super::outcome::Pairs;
use super::{PendingLoss, Stage, gradient, operands, shared};
use crate::cuda::Queue;
use crate::error::LossError;
use crate::loss::checks::{self, Home};
use crate::loss::{LossOutput, autograd};
use crate::margin::LossConfig;

/// [`crate::nt_xent`] by the kernels of `queue`, on whose device both views must lie; so do the gradients.
///
/// Values are those of [`crate::nt_xent`] up to rounding. When both views are bf16, all products run on tensor cores. The call
/// waits for the device, to read the statistics.
///
/// # Errors
/// As [`crate::nt_xent`], with [`LossError::OtherDevice`] for a view that the queue does not reach; [`LossError::Candle`] for
/// what the device or its driver refuses.
pub fn nt_xent_on(
    queue: &Queue,
    config: &LossConfig,
    first_view: &Tensor,
    second_view: &Tensor,
) -> Result<LossOutput, LossError> {
    enqueue_nt_xent(queue, config, first_view, second_view)?.wait()
}

/// [`nt_xent_on`] without waiting for the device, as [`crate::ContrastiveLoss::enqueue`].
///
/// # Errors
/// As [`nt_xent_on`]; what fails on the device shows when it is waited for.
pub fn enqueue_nt_xent(
    queue: &Queue,
    config: &LossConfig,
    first_view: &Tensor,
    second_view: &Tensor,
) -> Result<PendingLoss, LossError> {
    config.validate()?;
    checks::views(Home::Queue(queue), first_view, second_view)?;
    let memory = Memory::on(first_view.device());
    nt_xent_in((queue, &memory), config, first_view, second_view)
}

/// [`nt_xent_on`] as a scalar f32 tensor that candle's `backward` can follow into both views, on the thread that made the queue.
///
/// # Errors
/// As [`nt_xent_on`].
pub fn nt_xent_forward_on(
    queue: &Queue,
    config: &LossConfig,
    first_view: &Tensor,
    second_view: &Tensor,
) -> Result<Tensor, LossError> {
    let output = nt_xent_on(queue, config, first_view, second_view)?;
    autograd::of_two(output, first_view, second_view)
}

pub(super) fn nt_xent_in(
    (queue, memory): (&Queue, &Memory),
    config: &LossConfig,
    first_view: &Tensor,
    second_view: &Tensor,
) -> Result<PendingLoss, LossError> {
    let half = first_view.dim(0)?;
    let ([first, second], _) = operands::in_one_format([first_view, second_view])?;
    let embeddings = Tensor::cat(&[first.tensor(), second.tensor()], 0)?;
    let ([rows], format) = operands::in_one_format([&embeddings])?;
    let stage = Stage {
        queue,
        memory,
        config,
        format,
    };
    let partials = shared::sweep(&stage, &rows, &rows, Some(half))?;
    let pairs = Pairs {
        queries: &rows,
        keys: &rows,
        partner: half,
        negative_count: 2 * half - 2,
    };
    let outcome = pairs.finish(&stage, &partials)?;
    let gradient = gradient::of_embeddings(&stage, &pairs, &outcome)?;
    let of_view =
        |first: usize, view: &Tensor| gradient.narrow(0, first, half)?.to_dtype(view.dtype());
    let (queries_gradient, keys_gradient) = (of_view(0, first_view)?, of_view(half, second_view)?);
    Ok(PendingLoss {
        queries_gradient,
        keys_gradient: Some(keys_gradient),
        negatives_gradient: None,
        figures: outcome.figures(&stage, pairs.negative_count)?,
    })
}
