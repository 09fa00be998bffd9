//! Max-pooling 3x3, stride 2, padding 1: the pool of the ImageNet stem.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, bail};
use eqco_core::cuda::{Launch, address, address_mut};
use rayon::prelude::*;

use super::access::{read, write};
use super::element::{Element, for_element};
use super::lanes::vectorized;
use crate::backend::Backend;
use crate::cuda::{Cuda, across, by_type, vector_of};
use crate::profile::{Phase, Work, bytes_of};
use crate::tape::{Activation, Tape};

const SIDE: usize = 3;
const STRIDE: usize = 2;
const PADDING: usize = 1;

/// Pools `input` `[N,H,W,C]` to `[N,⌈H/2⌉,⌈W/2⌉,C]`. Of equal values the first in reading order gets the gradient.
///
/// # Errors
/// When the input is not four-dimensional or empty.
pub fn max_pool(tape: &mut Tape, input: &Activation) -> Result<Activation> {
    let &[batch, height, width, channels] = input.dims() else {
        bail!("max_pool: expected [N,H,W,C], found {:?}", input.dims())
    };
    if height == 0 || width == 0 {
        bail!("max_pool: empty input {:?}", input.dims());
    }
    let map = Map {
        height,
        width,
        channels,
    };
    let shape = (
        batch,
        height.div_ceil(STRIDE),
        width.div_ceil(STRIDE),
        channels,
    );
    if let Backend::Cuda(cuda) = tape.backend() {
        return on_cuda(&Arc::clone(cuda), tape, input, map, shape);
    }
    let mut output = tape.allocate(shape, input.dtype())?;
    let _span = tape.profiler().span(|| {
        Work::new("max_pool", Phase::Forward).moving(bytes_of([input.tensor(), output.tensor()]))
    });
    for_element!(input.dtype(), T => read(input.tensor(), |x: &[T]| {
        write(output.tensor(), |y| map.forward(x, y))
    })??);
    let (input, pooled) = (input.keep(), output.clone());
    tape.record(&mut output, move |gradient, pass| {
        let Some(slot) = input.slot() else {
            return Ok(());
        };
        let (target, accumulate) = pass.target(&slot)?;
        let input = input.value(pass)?;
        let _span = pass.profiler().span(|| {
            Work::new("max_pool", Phase::Backward).moving(bytes_of([
                input.tensor(),
                pooled.tensor(),
                gradient.tensor(),
                &target,
            ]))
        });
        for_element!(input.dtype(), T => read(input.tensor(), |x: &[T]| {
            read(pooled.tensor(), |y| {
                read(gradient.tensor(), |dy| {
                    write(&target, |dx| map.backward(x, y, dy, dx, accumulate))
                })
            })
        })???)
    });
    Ok(output)
}

/// The same on a GPU. The forward pass keeps the place of every maximum, a byte each: the backward pass needs neither input
/// nor output.
fn on_cuda(
    cuda: &Arc<Cuda>,
    tape: &mut Tape,
    input: &Activation,
    map: Map,
    shape: (usize, usize, usize, usize),
) -> Result<Activation> {
    let mut output = tape.allocate(shape, input.dtype())?;
    let places = tape.allocate(shape, DType::U8)?;
    let profiler = tape.profiler().clone();
    let _span = profiler.span(|| {
        let moved = bytes_of([input.tensor(), output.tensor(), places.tensor()]);
        Work::new("max_pool", Phase::Forward).moving(moved)
    });
    let launch = map
        .launch(input.dtype(), KERNELS, output.tensor().elem_count())?
        .arg(address(input.tensor())?)
        .arg(address_mut(output.tensor())?)
        .arg(address_mut(places.tensor())?);
    // SAFETY: the arguments are those of the kernel, with the sizes of `map`.
    unsafe { cuda.launch(&map.with_sizes(launch, output.tensor().elem_count()))? };
    let (slot, cuda) = (input.slot(), Arc::clone(cuda));
    tape.record(&mut output, move |gradient, pass| {
        let Some(slot) = slot else { return Ok(()) };
        let (target, accumulate) = pass.target(&slot)?;
        let _span = pass.profiler().span(|| {
            let moved = bytes_of([places.tensor(), gradient.tensor(), &target]);
            Work::new("max_pool", Phase::Backward).moving(moved)
        });
        let launch = map
            .launch(target.dtype(), GRADIENT_KERNELS, target.elem_count())?
            .arg(address(gradient.tensor())?)
            .arg(address(places.tensor())?)
            .arg(address_mut(&target)?);
        let launch = map.with_sizes(launch, target.elem_count()).arg(accumulate);
        // SAFETY: as above.
        unsafe { cuda.launch(&launch) }
    });
    Ok(output)
}

/// Kernels of `max_pool.cu` for vectors of 8 channels and for single ones, each for f32 and bf16.
type PoolKernels = [[&'static str; 2]; 2];

const KERNELS: PoolKernels = [
    ["max_pool_f32", "max_pool_bf16"],
    ["max_pool_single_f32", "max_pool_single_bf16"],
];
const GRADIENT_KERNELS: PoolKernels = [
    ["max_pool_gradient_f32", "max_pool_gradient_bf16"],
    [
        "max_pool_gradient_single_f32",
        "max_pool_gradient_single_bf16",
    ],
];

#[derive(Clone, Copy)]
struct Map {
    height: usize,
    width: usize,
    channels: usize,
}

impl Map {
    /// A launch of a thread for every vector of `elements`, which the kernels number with 32 bits.
    fn launch(
        &self,
        dtype: DType,
        [eights, singles]: PoolKernels,
        elements: usize,
    ) -> Result<Launch> {
        let threads = elements / self.vector();
        if u32::try_from(threads).is_err() {
            bail!(
                "max_pool: expected fewer than 2^32 vectors of channels in a batch, found {threads}"
            );
        }
        let kernels = if self.vector() > 1 { eights } else { singles };
        Ok(across(by_type(dtype, kernels), threads))
    }

    fn with_sizes(&self, launch: Launch, elements: usize) -> Launch {
        launch
            .arg(self.height)
            .arg(self.width)
            .arg(self.channels)
            .arg(elements / self.vector())
    }

    fn vector(&self) -> usize {
        vector_of(self.channels)
    }

    fn out_width(&self) -> usize {
        self.width.div_ceil(STRIDE)
    }

    fn out_image(&self) -> usize {
        self.height.div_ceil(STRIDE) * self.out_width() * self.channels
    }

    fn forward<T: Element>(&self, x: &[T], y: &mut [T]) {
        let image = self.height * self.width * self.channels;
        y.par_chunks_mut(self.out_image())
            .zip(x.par_chunks(image))
            .for_each(|(y, x)| {
                vectorized(
                    #[inline(always)]
                    || self.pool_image(x, y),
                );
            });
    }

    #[inline(always)]
    fn pool_image<T: Element>(&self, x: &[T], y: &mut [T]) {
        for (index, pixel) in y.chunks_exact_mut(self.channels).enumerate() {
            pixel.fill(T::store(f32::NEG_INFINITY));
            self.window(
                index,
                #[inline(always)]
                |source| {
                    for (target, value) in pixel.iter_mut().zip(&x[source..]) {
                        let (largest, candidate) = (target.load(), value.load());
                        // A NaN wins, as in PyTorch, so that a diverged run shows.
                        let wins = candidate > largest || candidate.is_nan();
                        *target = if wins { *value } else { *target };
                    }
                },
            );
        }
    }

    fn backward<T: Element>(&self, x: &[T], y: &[T], dy: &[T], dx: &mut [T], accumulate: bool) {
        let image = self.height * self.width * self.channels;
        let outputs = y
            .par_chunks(self.out_image())
            .zip(dy.par_chunks(self.out_image()));
        dx.par_chunks_mut(image)
            .zip(x.par_chunks(image))
            .zip(outputs)
            .for_each(|((dx, x), (y, dy))| {
                if !accumulate {
                    dx.fill(T::ZERO);
                }
                vectorized(
                    #[inline(always)]
                    || self.scatter_image(x, y, dy, dx),
                );
            });
    }

    #[inline(always)]
    fn scatter_image<T: Element>(&self, x: &[T], y: &[T], dy: &[T], dx: &mut [T]) {
        let mut pending = vec![0.0; self.channels];
        for (index, (y, dy)) in y
            .chunks_exact(self.channels)
            .zip(dy.chunks_exact(self.channels))
            .enumerate()
        {
            for (pending, dy) in pending.iter_mut().zip(dy) {
                *pending = dy.load();
            }
            self.window(
                index,
                #[inline(always)]
                |source| {
                    let window = dx[source..]
                        .iter_mut()
                        .zip(&x[source..])
                        .zip(y.iter().zip(&mut pending));
                    for ((dx, x), (y, pending)) in window {
                        // Two selections instead of a branch, which would not vectorise.
                        let is_largest = x.load() == y.load();
                        let sum = T::store(dx.load() + *pending);
                        *dx = if is_largest { sum } else { *dx };
                        *pending = if is_largest { 0.0 } else { *pending };
                    }
                },
            );
        }
    }

    /// Calls `visit` with the offset of every input pixel under output pixel `index`, in reading order.
    #[inline(always)]
    fn window(&self, index: usize, mut visit: impl FnMut(usize)) {
        let (row, column) = (index / self.out_width(), index % self.out_width());
        for y in covered(row, self.height) {
            for x in covered(column, self.width) {
                visit((y * self.width + x) * self.channels);
            }
        }
    }
}

fn covered(out: usize, len: usize) -> Range<usize> {
    let origin = out * STRIDE;
    origin.saturating_sub(PADDING)..(origin + SIDE - PADDING).min(len)
}
