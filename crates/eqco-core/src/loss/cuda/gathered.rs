//! Sweeps over columns that each row has a list of.

use candle_core::{DType, Tensor};

use super::operands::Operand;
use super::outcome::{Outcome, Partials};
use super::split::Split;
use super::transposed::TransposedDraw;
use super::{Launch, LossError, Stage};
use crate::cuda::{address, address_mut};
use crate::negatives::NegativeDraw;

/// Threads of a warp: the columns that one takes at a time.
const WARP: usize = 32;
/// Warps of a block, each with a row: WARPS in `gathered.cu`.
const WARPS: usize = 4;

/// One pass over the negatives of every query. `draw` is for all of `batch_keys`, the queries are those from place `first` on.
pub(super) fn sweep(
    stage: &Stage<'_>,
    queries: &Operand,
    batch_keys: &Operand,
    (draw, first): (&NegativeDraw, usize),
) -> Result<Partials, LossError> {
    let length = draw.negative_count();
    let own = first * length..(first + queries.rows) * length;
    let split = Split::of(length, WARP, queries.rows.div_ceil(WARPS));
    let partials = Partials::unwritten(stage, split.parts, queries)?;
    stage.queue.upload(&draw.indices()[own], |lists| {
        let launch = launch(
            stage,
            ["gathered_sweep_f32", "gathered_sweep_bf16"],
            (queries, batch_keys),
            split.parts,
        )?
        .arg(lists)
        .arg(length)
        .arg(split.columns)
        .arg(stage.scale())
        .arg(address_mut(&partials.sums)?)
        .arg(address_mut(&partials.weighted)?);
        // SAFETY: these are the kernel's parameters; a draw names keys of its batch alone, and `checks` has seen that the
        // batch has as many keys and the queries lie within it. Results have the sizes that the kernel writes, and all live
        // to the end of the call (on a device memory is freed in the order of the queue).
        unsafe { stage.launch(&launch) }
    })?;
    Ok(partials)
}

/// Gradient with respect to the keys as negatives, `[B, dim]` in f32.
///
/// The draw is transposed on the host and copied, so that a warp owns a key and adds up its queries in their order: no two
/// threads write to one place, and the sum is the same in every run.
pub(super) fn keys_gradient(
    stage: &Stage<'_>,
    keys: &Operand,
    queries: &Operand,
    draw: &NegativeDraw,
    outcome: &Outcome,
) -> Result<Tensor, LossError> {
    let transposed = TransposedDraw::of(draw)?;
    let gradient = stage.memory.unwritten((keys.rows, keys.dim), DType::F32)?;
    let send = |starts: u64, lists: u64| -> Result<(), LossError> {
        let launch = launch(
            stage,
            ["gathered_gradient_f32", "gathered_gradient_bf16"],
            (keys, queries),
            1,
        )?
        .arg(starts)
        .arg(lists)
        .arg(stage.scale())
        .arg(address(&outcome.known)?)
        .arg(address_mut(&gradient)?);
        // SAFETY: as in `sweep`; the transposed draw has a start for each key and one behind, and names queries of the batch.
        unsafe { stage.launch(&launch) }
    };
    stage.queue.upload(&transposed.starts, |starts| {
        stage
            .queue
            .upload(&transposed.queries, |lists| send(starts, lists))
    })?;
    Ok(gradient)
}

/// The arguments that both kernels begin with. `names` are those for f32 and bf16.
fn launch(
    stage: &Stage<'_>,
    names: [&'static str; 2],
    (rows, columns): (&Operand, &Operand),
    parts: usize,
) -> Result<Launch, LossError> {
    Ok(Launch::new(stage.kernel(names[0], names[1]))
        .grid(rows.rows.div_ceil(WARPS), parts, 1)
        .block(WARPS * WARP, 1)
        .arg(rows.address()?)
        .arg(columns.address()?)
        .arg(rows.rows)
        .arg(columns.rows)
        .arg(rows.dim)
        .arg(stage.format.wide))
}
