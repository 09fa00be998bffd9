//! L2 normalisation of embeddings: y = x / max(‖x‖, ε).

use candle_core::{DType, Result, bail};
use eqco_core::cuda::{address, address_mut};
use rayon::prelude::*;

use super::access::{read, write};
use crate::cuda::a_warp_each;
use crate::profile::{Phase, Work, bytes_of};
use crate::tape::{Activation, Tape};

/// Smallest norm that is divided by, as PyTorch's `normalize`.
const SMALLEST_NORM: f32 = 1e-12;

/// Scales every row of `input` `[N,D]` to unit length.
///
/// # Errors
/// When the input is not two-dimensional.
pub fn l2_normalize(tape: &mut Tape, input: &Activation) -> Result<Activation> {
    let &[rows, dim] = input.dims() else {
        bail!("l2_normalize: expected [N,D], found {:?}", input.dims())
    };
    let mut output = tape.allocate(input.tensor().shape().clone(), DType::F32)?;
    let _span = tape.profiler().span(|| {
        Work::new("l2_normalize", Phase::Forward)
            .moving(bytes_of([input.tensor(), output.tensor()]))
    });
    if let Some(cuda) = tape.backend().cuda() {
        let launch = a_warp_each("l2_normalize", rows)
            .arg(address(input.tensor())?)
            .arg(address_mut(output.tensor())?)
            .arg(rows)
            .arg(dim)
            .arg(SMALLEST_NORM);
        // SAFETY: the arguments are those of the kernel.
        unsafe { cuda.launch(&launch)? };
    } else {
        read(input.tensor(), |x| {
            write(output.tensor(), |y| forward(dim, x, y))
        })??;
    }
    let (input, unit) = (input.clone(), output.clone());
    tape.record(&mut output, move |gradient, pass| {
        let Some(slot) = input.slot() else {
            return Ok(());
        };
        let _span = pass.profiler().span(|| {
            Work::new("l2_normalize", Phase::Backward).moving(bytes_of([
                input.tensor(),
                unit.tensor(),
                gradient.tensor(),
                gradient.tensor(),
            ]))
        });
        if let Some(cuda) = pass.backend().cuda() {
            let launch = a_warp_each("l2_normalize_gradient", rows)
                .arg(address(input.tensor())?)
                .arg(address(unit.tensor())?)
                .arg(address_mut(gradient.tensor())?)
                .arg(rows)
                .arg(dim)
                .arg(SMALLEST_NORM);
            // SAFETY: the arguments are those of the kernel.
            unsafe { cuda.launch(&launch)? };
        } else {
            read(input.tensor(), |x| {
                read(unit.tensor(), |y| {
                    write(gradient.tensor(), |dy| backward(dim, x, y, dy))
                })
            })???;
        }
        pass.give(&slot, gradient)
    });
    Ok(output)
}

fn forward(dim: usize, x: &[f32], y: &mut [f32]) {
    y.par_chunks_mut(dim)
        .zip(x.par_chunks(dim))
        .for_each(|(y, x)| {
            let scale = 1.0 / norm(x);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x * scale);
        });
}

/// In place: dx = (dy − y·(y·dy)) / ‖x‖, or dy / ε where the norm is below ε and thus a constant, as in PyTorch.
fn backward(dim: usize, x: &[f32], y: &[f32], dy: &mut [f32]) {
    dy.par_chunks_mut(dim)
        .zip(x.par_chunks(dim).zip(y.par_chunks(dim)))
        .for_each(|(dy, (x, y))| {
            let norm = norm(x);
            let along: f32 = if norm > SMALLEST_NORM {
                y.iter().zip(dy.iter()).map(|(y, dy)| y * dy).sum()
            } else {
                0.0
            };
            let scale = 1.0 / norm;
            dy.iter_mut()
                .zip(y)
                .for_each(|(dy, y)| *dy = (*dy - y * along) * scale);
        });
}

fn norm(row: &[f32]) -> f32 {
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
    // Not `max`, which would hide a NaN.
    if norm < SMALLEST_NORM {
        SMALLEST_NORM
    } else {
        norm
    }
}
