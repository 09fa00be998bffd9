//! Sweeps over columns that all rows share.

use candle_core::{DType, Tensor};

use super::operands::Operand;
use super::outcome::Partials;
use super::split::Split;
use super::{Launch, LossError, Stage};
use crate::cuda::address_mut;

/// Values of a row in shared memory at one time: PIECE in `sweep.cuh`.
const PIECE: usize = 128;
/// Bytes behind each row in shared memory.
const ROW_PADDING: usize = 16;

/// What a block of a kernel works on: the constants of `sweep_f32.cu` and `sweep_bf16.cu`.
struct Block {
    threads: usize,
    rows: usize,
    /// Columns at a time.
    span: usize,
    shared_bytes: usize,
}

impl Block {
    fn of(dtype: DType) -> Self {
        let (threads, rows, span) = match dtype {
            DType::BF16 => (128, 128, 64),
            _ => (256, 64, 64),
        };
        let row_bytes = PIECE * dtype.size_in_bytes() + ROW_PADDING;
        // bf16: columns twice, these and the next. f32: the weights, in rows of span + 4.
        let shared_bytes = match dtype {
            DType::BF16 => (rows + 2 * span) * row_bytes,
            _ => (rows + span) * row_bytes + rows * (span + 4) * dtype.size_in_bytes(),
        };
        Self {
            threads,
            rows,
            span,
            shared_bytes,
        }
    }
}

/// One pass over the negatives for all queries. With `half`, queries and negatives are the same `2 * half` rows, and none meets
/// itself or its partner.
pub(super) fn sweep(
    stage: &Stage<'_>,
    queries: &Operand,
    negatives: &Operand,
    half: Option<usize>,
) -> Result<Partials, LossError> {
    let split = split(stage, queries, negatives);
    let partials = Partials::unwritten(stage, split.parts, queries)?;
    let kernel = kernel(
        stage,
        queries,
        [
            "shared_sweep_f32",
            "shared_sweep_bf16",
            "shared_sweep_bf16_piece",
        ],
    );
    let launch = launch(stage, kernel, (queries, negatives), split, half)?
        .arg(address_mut(&partials.sums)?)
        .arg(address_mut(&partials.weighted)?);
    // SAFETY: these are the kernel's parameters; operands are contiguous matrices of the sizes given, the results have the
    // sizes that the kernel's documentation gives, and all live to the end of the call (on a device memory is freed in
    // the order of the queue).
    unsafe { stage.launch(&launch)? };
    Ok(partials)
}

/// Gradient with respect to the negatives, as `[parts, K, dim]` in f32 to be added up. `known` is what the outcome knows of
/// each query, `[3, N]`.
pub(super) fn gradient(
    stage: &Stage<'_>,
    negatives: &Operand,
    queries: &Operand,
    known: &Tensor,
    half: Option<usize>,
) -> Result<Tensor, LossError> {
    let split = split(stage, negatives, queries);
    let shape = (split.parts, negatives.rows, negatives.dim);
    let parts = stage.memory.unwritten(shape, DType::F32)?;
    let kernel = kernel(
        stage,
        negatives,
        [
            "shared_gradient_f32",
            "shared_gradient_bf16",
            "shared_gradient_bf16_piece",
        ],
    );
    let launch = launch(stage, kernel, (negatives, queries), split, half)?
        .arg(crate::cuda::address(known)?)
        .arg(address_mut(&parts)?);
    // SAFETY: as in `sweep`.
    unsafe { stage.launch(&launch)? };
    Ok(parts)
}

fn split(stage: &Stage<'_>, rows: &Operand, columns: &Operand) -> Split {
    let block = Block::of(stage.format.dtype);
    let blocks = rows.rows.div_ceil(block.rows) * rows.dim.div_ceil(PIECE);
    Split::of(columns.rows, block.span, blocks)
}

/// Of the kernels for f32, for bf16, and for bf16 in rows of one piece.
fn kernel(stage: &Stage<'_>, rows: &Operand, names: [&'static str; 3]) -> &'static str {
    let [for_f32, for_bf16, for_piece] = names;
    let is_piece = rows.dim == PIECE && stage.format.wide;
    stage.kernel(for_f32, if is_piece { for_piece } else { for_bf16 })
}

/// All but the last two arguments.
fn launch(
    stage: &Stage<'_>,
    kernel: &'static str,
    (rows, columns): (&Operand, &Operand),
    split: Split,
    half: Option<usize>,
) -> Result<Launch, LossError> {
    let block = Block::of(stage.format.dtype);
    Ok(Launch::new(kernel)
        .grid(
            rows.rows.div_ceil(block.rows),
            split.parts,
            rows.dim.div_ceil(PIECE),
        )
        .block(block.threads, 1)
        .shared(block.shared_bytes)
        .arg(rows.address()?)
        .arg(columns.address()?)
        .arg(rows.rows)
        .arg(columns.rows)
        .arg(rows.dim)
        .arg(stage.format.wide)
        .arg(split.columns)
        .arg(half.unwrap_or(0))
        .arg(stage.scale()))
}
