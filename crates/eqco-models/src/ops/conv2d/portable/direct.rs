//! Direct convolution for few channels: no patches, no packing of images.
//!
//! A zero-padded copy of one image makes every patch a set of contiguous runs (kernel width times channels). A tile of
//! output pixels times output channels stays in registers while weights stream from the first-level cache and input
//! values are broadcast. The weight gradient keeps a tile of taps times output channels in registers and streams pixels.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::super::Geometry;
use crate::ops::element::{Element, load_all};
use crate::ops::factor::Factor;
use crate::ops::lanes::{dispatch, split, vectorized};
use crate::ops::scratch::with_scratch;

/// Output channels of a block: the widest vector (narrower ones pass over a block several times).
const LANES: usize = 16;
/// Taps of a tile of the weight gradient.
const TAPS: usize = 12;
/// More input channels than this are quicker as matrix products (measured).
const MOST_INPUT_CHANNELS: usize = 32;

/// Shorter patches than this leave matrix products of pairs no advantage (measured).
const SHORT_PATCH: usize = 64;

/// Whether the direct kernels are meant for this convolution of `T`: they multiply f32 alone.
pub fn suits<T: Element>(geometry: &Geometry) -> bool {
    geometry.kernel > 1
        && (T::Factor::DEPTH == 1 || geometry.patch() < SHORT_PATCH)
        && geometry.in_channels <= MOST_INPUT_CHANNELS
        && geometry.out_channels.is_multiple_of(LANES)
        && geometry.out_width() >= 4
        && geometry.batch >= rayon::current_num_threads()
}

/// Whether the maps of one image fit the second-level cache, from which the weight gradient reads them many times.
pub fn suits_weight_gradient(geometry: &Geometry) -> bool {
    4 * (geometry.in_image() + geometry.out_image()) <= 1 << 20
}

/// Sizes of the padded copy of an image.
#[derive(Clone, Copy)]
struct Padded {
    row: usize,
    len: usize,
}

impl Padded {
    fn new(geometry: &Geometry) -> Self {
        let row = (geometry.width + 2 * geometry.padding) * geometry.in_channels;
        // A tile of taps may read past the last run; what it computes there is dropped.
        Self {
            row,
            len: (geometry.height + 2 * geometry.padding) * row + TAPS,
        }
    }

    #[inline(always)]
    fn fill<T: Element>(self, geometry: &Geometry, image: &[T], padded: &mut [f32]) {
        let (line, margin) = (
            geometry.width * geometry.in_channels,
            geometry.padding * geometry.in_channels,
        );
        padded.fill(0.0);
        for (y, source) in image.chunks_exact(line).enumerate() {
            load_all(
                source,
                &mut padded[(y + geometry.padding) * self.row + margin..][..line],
            );
        }
    }
}

/// `y (+)= conv(x, w)`.
pub fn forward<T: Element>(geometry: &Geometry, x: &[T], w: &[f32], y: &mut [T], accumulate: bool) {
    let padded = Padded::new(geometry);
    let weights = pack_weights(geometry, w);
    y.par_chunks_mut(geometry.out_image())
        .zip(x.par_chunks(geometry.in_image()))
        .for_each(|(y, x)| {
            with_scratch(padded.len, |image| {
                vectorized(
                    #[inline(always)]
                    || padded.fill(geometry, x, image),
                );
                dispatch(ForwardImage {
                    geometry,
                    padded,
                    image,
                    weights: &weights,
                    y,
                    accumulate,
                });
            });
        });
}

/// `[O,k,k,I]` to `[O/LANES, k·k·I, LANES]`.
fn pack_weights(geometry: &Geometry, w: &[f32]) -> Vec<f32> {
    let patch = geometry.patch();
    let mut packed = vec![0.0; w.len()];
    for (block, packed) in packed.chunks_exact_mut(patch * LANES).enumerate() {
        for (tap, lanes) in packed.chunks_exact_mut(LANES).enumerate() {
            for (lane, value) in lanes.iter_mut().enumerate() {
                *value = w[(block * LANES + lane) * patch + tap];
            }
        }
    }
    packed
}

struct ForwardImage<'a, T> {
    geometry: &'a Geometry,
    padded: Padded,
    image: &'a [f32],
    /// As [`pack_weights`] gives them.
    weights: &'a [f32],
    y: &'a mut [T],
    accumulate: bool,
}

/// Where a tile of the forward pass lies: first output pixel of the line, and first of its output channels.
#[derive(Clone, Copy)]
struct Place {
    x: usize,
    channel: usize,
}

impl<T: Element> WithSimd for ForwardImage<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let line = self.geometry.out_width() * self.geometry.out_channels;
        let block = self.geometry.patch() * LANES;
        for (out_y, y) in self.y.chunks_exact_mut(line).enumerate() {
            let rows = &self.image[out_y * self.geometry.stride * self.padded.row..];
            for (index, weights) in self.weights.chunks_exact(block).enumerate() {
                for lane in (0..LANES).step_by(S::F32_LANES) {
                    let weights = &S::as_simd_f32s(weights).0[lane / S::F32_LANES..];
                    let tile = ForwardTile {
                        geometry: self.geometry,
                        row: self.padded.row,
                        rows,
                        weights,
                        accumulate: self.accumulate,
                    };
                    tile.line(simd, index * LANES + lane, y);
                }
            }
        }
    }
}

struct ForwardTile<'a, V> {
    geometry: &'a Geometry,
    row: usize,
    rows: &'a [f32],
    /// One vector every `LANES / width of a vector`.
    weights: &'a [V],
    accumulate: bool,
}

impl<V: Copy> ForwardTile<'_, V> {
    /// One output line of one vector of channels.
    #[inline(always)]
    fn line<S: Simd<f32s = V>, T: Element>(&self, simd: S, channel: usize, y: &mut [T]) {
        let width = self.geometry.out_width();
        let mut x = 0;
        while x < width {
            let place = Place { x, channel };
            x += match width - x {
                14.. if !width.is_multiple_of(16) => self.tile::<S, T, 14>(simd, place, y),
                16.. => self.tile::<S, T, 16>(simd, place, y),
                8.. => self.tile::<S, T, 8>(simd, place, y),
                4.. => self.tile::<S, T, 4>(simd, place, y),
                _ => self.tile::<S, T, 1>(simd, place, y),
            };
        }
    }

    /// `PIXELS` neighbouring output pixels of one vector of channels; returns their number.
    #[inline(always)]
    fn tile<S: Simd<f32s = V>, T: Element, const PIXELS: usize>(
        &self,
        simd: S,
        place: Place,
        y: &mut [T],
    ) -> usize {
        let geometry = self.geometry;
        let (step, run) = (
            geometry.stride * geometry.in_channels,
            geometry.kernel * geometry.in_channels,
        );
        let vectors = LANES / S::F32_LANES;
        let mut sums = [simd.splat_f32s(0.0); PIXELS];
        for ky in 0..geometry.kernel {
            let source = &self.rows[ky * self.row + place.x * step..][..(PIXELS - 1) * step + run];
            let weights = &self.weights[ky * run * vectors..];
            for (tap, weight) in weights.iter().step_by(vectors).take(run).enumerate() {
                for (pixel, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: pixel < PIXELS and tap < run: the index is below (PIXELS − 1)·step + run, the length.
                    let value = unsafe { *source.get_unchecked(pixel * step + tap) };
                    *sum = simd.mul_add_e_f32s(simd.splat_f32s(value), *weight, *sum);
                }
            }
        }
        for (pixel, sum) in sums.into_iter().enumerate() {
            let target =
                &mut y[(place.x + pixel) * geometry.out_channels + place.channel..][..S::F32_LANES];
            let value = if self.accumulate {
                simd.add_f32s(T::load_vector(simd, target), sum)
            } else {
                sum
            };
            T::store_vector(simd, value, target);
        }
        PIXELS
    }
}

/// `dw (+)= ` gradient with respect to the weights. Each thread sums over its own share of the images.
pub fn backward_weight<T: Element>(
    geometry: &Geometry,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
    accumulate: bool,
) {
    let shares = split(geometry.batch, rayon::current_num_threads());
    let partials: Vec<Vec<f32>> = shares
        .into_par_iter()
        .map(|images| weight_gradient_of(geometry, x, dy, images))
        .collect();
    let patch = geometry.patch();
    for (index, target) in dw.iter_mut().enumerate() {
        let (channel, tap) = (index / patch, index % patch);
        let packed = (channel / LANES * patch + tap) * LANES + channel % LANES;
        let sum: f32 = partials.iter().map(|partial| partial[packed]).sum();
        *target = if accumulate { *target + sum } else { sum };
    }
}

fn weight_gradient_of<T: Element>(
    geometry: &Geometry,
    x: &[T],
    dy: &[T],
    images: Range<usize>,
) -> Vec<f32> {
    let padded = Padded::new(geometry);
    let mut gradient = vec![0.0; geometry.out_channels * geometry.patch()];
    with_scratch(padded.len, |image| {
        for index in images {
            let x = &x[index * geometry.in_image()..][..geometry.in_image()];
            vectorized(
                #[inline(always)]
                || padded.fill(geometry, x, image),
            );
            T::with_widened(
                &dy[index * geometry.out_image()..][..geometry.out_image()],
                |dy| {
                    dispatch(WeightGradientOfImage {
                        geometry,
                        padded,
                        image,
                        dy,
                        gradient: &mut gradient,
                    });
                },
            );
        }
    });
    gradient
}

struct WeightGradientOfImage<'a> {
    geometry: &'a Geometry,
    padded: Padded,
    image: &'a [f32],
    dy: &'a [f32],
    /// Packed as [`pack_weights`] does; added to.
    gradient: &'a mut [f32],
}

impl WithSimd for WeightGradientOfImage<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            geometry,
            padded,
            image,
            dy,
            gradient,
        } = self;
        let (patch, run) = (geometry.patch(), geometry.kernel * geometry.in_channels);
        for (block, gradient) in gradient.chunks_exact_mut(patch * LANES).enumerate() {
            for (ky, gradient) in gradient.chunks_exact_mut(run * LANES).enumerate() {
                for (tile, gradient) in gradient.chunks_mut(TAPS * LANES).enumerate() {
                    let rows = &image[ky * padded.row + tile * TAPS..];
                    for lane in (0..LANES).step_by(S::F32_LANES) {
                        let dy = &dy[block * LANES + lane..];
                        weight_gradient_tile(
                            simd,
                            geometry,
                            padded.row,
                            rows,
                            dy,
                            &mut gradient[lane..],
                        );
                    }
                }
            }
        }
    }
}

/// [`TAPS`] taps of one vector of output channels, over all pixels of an image.
#[inline(always)]
fn weight_gradient_tile<S: Simd>(
    simd: S,
    geometry: &Geometry,
    row: usize,
    rows: &[f32],
    dy: &[f32],
    gradient: &mut [f32],
) {
    let (width, step) = (geometry.out_width(), geometry.stride * geometry.in_channels);
    let mut sums = [simd.splat_f32s(0.0); TAPS];
    for out_y in 0..geometry.out_height() {
        let line = &rows[out_y * geometry.stride * row..];
        for out_x in 0..width {
            let pixel = &dy[(out_y * width + out_x) * geometry.out_channels..][..S::F32_LANES];
            let pixel = S::as_simd_f32s(pixel).0[0];
            let taps: &[f32] = &line[out_x * step..][..TAPS];
            for tap in 0..TAPS {
                sums[tap] = simd.mul_add_e_f32s(simd.splat_f32s(taps[tap]), pixel, sums[tap]);
            }
        }
    }
    // A last tile that reaches past the run has fewer places for its sums; the rest is dropped.
    for (target, sum) in gradient.chunks_mut(LANES).zip(sums) {
        let target = &mut S::as_mut_simd_f32s(&mut target[..S::F32_LANES]).0[0];
        *target = simd.add_f32s(*target, sum);
    }
}
