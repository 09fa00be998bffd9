//! What the loss accepts.

use candle_core::{DType, Tensor};

use crate::cuda::Queue;
use crate::error::LossError;
use crate::negatives::{NegativeDraw, Negatives};

/// Where inputs must lie.
#[derive(Debug, Clone, Copy)]
pub(super) enum Home<'a> {
    Cpu,
    /// Where this queue's kernels reach them.
    Queue(&'a Queue),
}

/// Checks all inputs of [`super::ContrastiveLoss::evaluate`].
pub(super) fn inputs(
    home: Home<'_>,
    queries: &Tensor,
    keys: &Tensor,
    negatives: Negatives<'_>,
) -> Result<(), LossError> {
    let (count, dim) = matrix(home, "queries", queries)?;
    matrix_of(home, "keys", keys, (count, dim))?;
    match negatives {
        Negatives::Shared(negatives) => shared(home, negatives, dim),
        Negatives::InBatch(draw) => whole_draw(draw, count),
        Negatives::InLargerBatch {
            draw,
            batch_keys,
            first,
        } => {
            matrix_of(home, "batch_keys", batch_keys, (draw.batch_size(), dim))?;
            part_of_draw(draw, first, count)
        }
    }
}

/// Checks both views of NT-Xent, which need two images.
pub(super) fn views(
    home: Home<'_>,
    first_view: &Tensor,
    second_view: &Tensor,
) -> Result<(), LossError> {
    let (half, dim) = matrix(home, "first_view", first_view)?;
    matrix_of(home, "second_view", second_view, (half, dim))?;
    if half < 2 {
        return Err(LossError::NoNegatives);
    }
    Ok(())
}

/// Checks that a tensor is a non-empty f32 or bf16 matrix at home and returns its sizes.
fn matrix(
    home: Home<'_>,
    input: &'static str,
    tensor: &Tensor,
) -> Result<(usize, usize), LossError> {
    let got = || tensor.device().clone();
    match home {
        Home::Cpu if !tensor.device().is_cpu() => {
            return Err(LossError::Device { input, got: got() });
        }
        Home::Queue(queue) if !queue.serves(tensor.device()) => {
            return Err(LossError::OtherDevice { input, got: got() });
        }
        Home::Cpu | Home::Queue(_) => (),
    }
    if !matches!(tensor.dtype(), DType::F32 | DType::BF16) {
        return Err(LossError::Dtype {
            input,
            got: tensor.dtype(),
        });
    }
    match *tensor.dims() {
        [rows, dim] if rows > 0 && dim > 0 => Ok((rows, dim)),
        _ => Err(LossError::Shape {
            input,
            expected: "[rows, dim] with at least one row and one column".into(),
            got: tensor.dims().to_vec(),
        }),
    }
}

/// Checks as [`matrix`] does, and that the sizes are the given ones.
fn matrix_of(
    home: Home<'_>,
    input: &'static str,
    tensor: &Tensor,
    (rows, dim): (usize, usize),
) -> Result<(), LossError> {
    if matrix(home, input, tensor)? != (rows, dim) {
        let expected = format!("[{rows}, {dim}], the shape of the queries");
        return Err(LossError::Shape {
            input,
            expected,
            got: tensor.dims().to_vec(),
        });
    }
    Ok(())
}

fn shared(home: Home<'_>, negatives: &Tensor, dim: usize) -> Result<(), LossError> {
    if matches!(negatives.dims(), [0, _]) {
        return Err(LossError::NoNegatives);
    }
    if matrix(home, "negatives", negatives)?.1 != dim {
        let expected = format!("[K, {dim}], rows as long as the queries");
        let got = negatives.dims().to_vec();
        return Err(LossError::Shape {
            input: "negatives",
            expected,
            got,
        });
    }
    Ok(())
}

fn part_of_draw(draw: &NegativeDraw, first: usize, count: usize) -> Result<(), LossError> {
    let batch = draw.batch_size();
    match first.checked_add(count) {
        Some(end) if end <= batch => Ok(()),
        _ => Err(LossError::Draw {
            problem: format!(
                "{count} queries from place {first} on reach beyond its batch of {batch}"
            ),
        }),
    }
}

fn whole_draw(draw: &NegativeDraw, count: usize) -> Result<(), LossError> {
    if draw.batch_size() != count {
        let made_for = draw.batch_size();
        let problem = format!("made for a batch of {made_for}, but there are {count} queries");
        return Err(LossError::Draw { problem });
    }
    Ok(())
}
