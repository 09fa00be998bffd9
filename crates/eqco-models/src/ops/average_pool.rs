//! Global average pooling: `[N,H,W,C]` to the representation `[N,C]`.

use candle_core::{DType, Result, bail};
use eqco_core::cuda::{Launch, address, address_mut};
use rayon::prelude::*;

use super::access::{read, write};
use super::element::{Element, for_element};
use super::lanes::vectorized;
use crate::cuda::{across, by_type, vector_of};
use crate::profile::{Phase, Work, bytes_of};
use crate::tape::{Activation, Tape};

/// Averages over height and width. The representation is f32 whatever the format of the maps: precision is cheap from
/// here on, and the loss needs it.
///
/// # Errors
/// When the input is not four-dimensional or empty.
pub fn global_average_pool(tape: &mut Tape, input: &Activation) -> Result<Activation> {
    let &[batch, height, width, channels] = input.dims() else {
        bail!(
            "global_average_pool: expected [N,H,W,C], found {:?}",
            input.dims()
        )
    };
    if height * width == 0 {
        bail!("global_average_pool: empty input {:?}", input.dims());
    }
    let pixels = height * width;
    let mut output = tape.allocate((batch, channels), DType::F32)?;
    let _span = tape.profiler().span(|| {
        Work::new("average_pool", Phase::Forward)
            .moving(bytes_of([input.tensor(), output.tensor()]))
    });
    if let Some(cuda) = tape.backend().cuda() {
        let threads = batch * channels / vector_of(channels);
        let launch = launch(channels, input.dtype(), FORWARD, threads)
            .arg(address(input.tensor())?)
            .arg(address_mut(output.tensor())?)
            .arg(pixels)
            .arg(channels)
            .arg(threads as u64);
        // SAFETY: the arguments are those of the kernel.
        unsafe { cuda.launch(&launch)? };
    } else {
        for_element!(input.dtype(), T => read(input.tensor(), |x: &[T]| {
            write(output.tensor(), |y| forward(pixels, channels, x, y))
        })??);
    }
    let slot = input.slot();
    tape.record(&mut output, move |gradient, pass| {
        let Some(slot) = slot else { return Ok(()) };
        let (target, accumulate) = pass.target(&slot)?;
        let _span = pass.profiler().span(|| {
            Work::new("average_pool", Phase::Backward)
                .moving(bytes_of([gradient.tensor(), &target]))
        });
        if let Some(cuda) = pass.backend().cuda() {
            let threads = batch * pixels * channels / vector_of(channels);
            let launch = launch(channels, target.dtype(), BACKWARD, threads)
                .arg(address(gradient.tensor())?)
                .arg(address_mut(&target)?)
                .arg(pixels)
                .arg(channels)
                .arg(threads as u64)
                .arg(accumulate);
            // SAFETY: the arguments are those of the kernel.
            return unsafe { cuda.launch(&launch) };
        }
        for_element!(target.dtype(), T => read(gradient.tensor(), |dy| {
            write(&target, |dx: &mut [T]| backward(pixels, channels, dy, dx, accumulate))
        })?)
    });
    Ok(output)
}

/// Kernels of `average_pool.cu` for vectors of 8 channels and for single ones, each for f32 and bf16.
const FORWARD: [[&str; 2]; 2] = [
    ["average_pool_f32", "average_pool_bf16"],
    ["average_pool_single_f32", "average_pool_single_bf16"],
];
const BACKWARD: [[&str; 2]; 2] = [
    ["average_pool_gradient_f32", "average_pool_gradient_bf16"],
    [
        "average_pool_gradient_single_f32",
        "average_pool_gradient_single_bf16",
    ],
];

fn launch(
    channels: usize,
    dtype: DType,
    [eights, singles]: [[&'static str; 2]; 2],
    threads: usize,
) -> Launch {
    let kernels = if vector_of(channels) > 1 {
        eights
    } else {
        singles
    };
    across(by_type(dtype, kernels), threads)
}

fn forward<T: Element>(pixels: usize, channels: usize, x: &[T], y: &mut [f32]) {
    let share = 1.0 / pixels as f32;
    y.par_chunks_mut(channels)
        .zip(x.par_chunks(pixels * channels))
        .for_each(|(y, x)| {
            vectorized(
                #[inline(always)]
                || {
                    y.fill(0.0);
                    for pixel in x.chunks_exact(channels) {
                        y.iter_mut().zip(pixel).for_each(|(y, x)| *y += x.load());
                    }
                    y.iter_mut().for_each(|y| *y *= share);
                },
            );
        });
}

fn backward<T: Element>(
    pixels: usize,
    channels: usize,
    dy: &[f32],
    dx: &mut [T],
    accumulate: bool,
) {
    let share = 1.0 / pixels as f32;
    dx.par_chunks_mut(pixels * channels)
        .zip(dy.par_chunks(channels))
        .for_each(|(dx, dy)| {
            vectorized(
                #[inline(always)]
                || {
                    for pixel in dx.chunks_exact_mut(channels) {
                        if accumulate {
                            pixel
                                .iter_mut()
                                .zip(dy)
                                .for_each(|(dx, dy)| *dx = T::store(dx.load() + dy * share));
                        } else {
                            pixel
                                .iter_mut()
                                .zip(dy)
                                .for_each(|(dx, dy)| *dx = T::store(dy * share));
                        }
                    }
                },
            );
        });
}
