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
/// Taps of a tile of the weight gradient at most.
const MOST_TAPS: usize = 12;
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
            len: (geometry.height + 2 * geometry.padding) * row + MOST_TAPS,
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
                T::dispatch(ForwardImage {
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
        // Vectors of a tile: a block where there is room for it, so that a broadcast value serves all of its channels.
        match S::F32_LANES {
            16 => self.lines::<S, 1>(simd),
            8 => self.lines::<S, 2>(simd),
            _ => self.lines::<S, 4>(simd),
        }
    }
}

impl<T: Element> ForwardImage<'_, T> {
    #[inline(always)]
    fn lines<S: Simd, const VECTORS: usize>(self, simd: S) {
        let line = self.geometry.out_width() * self.geometry.out_channels;
        let block = self.geometry.patch() * LANES;
        for (out_y, y) in self.y.chunks_exact_mut(line).enumerate() {
            let rows = &self.image[out_y * self.geometry.stride * self.padded.row..];
            for (index, weights) in self.weights.chunks_exact(block).enumerate() {
                for lane in (0..LANES).step_by(VECTORS * S::F32_LANES) {
                    let weights = &S::as_simd_f32s(weights).0[lane / S::F32_LANES..];
                    let tile = ForwardTile {
                        geometry: self.geometry,
                        row: self.padded.row,
                        rows,
                        weights,
                        accumulate: self.accumulate,
                    };
                    tile.line::<S, T, VECTORS>(simd, index * LANES + lane, y);
                }
            }
        }
    }
}

struct ForwardTile<'a, V> {
    geometry: &'a Geometry,
    row: usize,
    rows: &'a [f32],
    /// Those of a tile every `LANES / width of a vector`.
    weights: &'a [V],
    accumulate: bool,
}

impl<V: Copy> ForwardTile<'_, V> {
    /// One output line of some vectors of channels, in tiles of as many pixels as 32 or 16 registers hold sums.
    #[inline(always)]
    fn line<S: Simd<f32s = V>, T: Element, const VECTORS: usize>(
        &self,
        simd: S,
        channel: usize,
        y: &mut [T],
    ) {
        let width = self.geometry.out_width();
        let mut x = 0;
        while x < width {
            let place = Place { x, channel };
            let rest = width - x;
            x += if VECTORS == 1 {
                match rest {
                    14.. if !width.is_multiple_of(16) => {
                        self.tile::<S, T, 14, VECTORS>(simd, place, y)
                    }
                    16.. => self.tile::<S, T, 16, VECTORS>(simd, place, y),
                    8.. => self.tile::<S, T, 8, VECTORS>(simd, place, y),
                    4.. => self.tile::<S, T, 4, VECTORS>(simd, place, y),
                    _ => self.tile::<S, T, 1, VECTORS>(simd, place, y),
                }
            } else {
                let tiles = rest.div_ceil(6);
                match rest.div_ceil(tiles) {
                    6.. => self.tile::<S, T, 6, VECTORS>(simd, place, y),
                    5 => self.tile::<S, T, 5, VECTORS>(simd, place, y),
                    4 => self.tile::<S, T, 4, VECTORS>(simd, place, y),
                    3 => self.tile::<S, T, 3, VECTORS>(simd, place, y),
                    2 => self.tile::<S, T, 2, VECTORS>(simd, place, y),
                    _ => self.tile::<S, T, 1, VECTORS>(simd, place, y),
                }
            };
        }
    }

    /// `PIXELS` neighbouring output pixels of `VECTORS` vectors of channels; returns their number.
    #[inline(always)]
    fn tile<S: Simd<f32s = V>, T: Element, const PIXELS: usize, const VECTORS: usize>(
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
        let block = LANES / S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; PIXELS];
        for ky in 0..geometry.kernel {
            let source = &self.rows[ky * self.row + place.x * step..][..(PIXELS - 1) * step + run];
            let weights = &self.weights[ky * run * block..][..(run - 1) * block + VECTORS];
            for tap in 0..run {
                let mut vectors = [simd.splat_f32s(0.0); VECTORS];
                for (index, vector) in vectors.iter_mut().enumerate() {
                    // SAFETY: tap < run and index < VECTORS: below (run − 1)·block + VECTORS, the length.
                    *vector = unsafe { *weights.get_unchecked(tap * block + index) };
                }
                for (pixel, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: pixel < PIXELS and tap < run: the index is below (PIXELS − 1)·step + run, the length.
                    let value = unsafe { *source.get_unchecked(pixel * step + tap) };
                    let value = simd.splat_f32s(value);
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = simd.mul_add_e_f32s(value, vector, *sum);
                    }
                }
            }
        }
        for (pixel, sums) in sums.into_iter().enumerate() {
            let start = (place.x + pixel) * geometry.out_channels + place.channel;
            let target = &mut y[start..][..VECTORS * S::F32_LANES];
            for (target, sum) in target.chunks_exact_mut(S::F32_LANES).zip(sums) {
                let value = if self.accumulate {
                    simd.add_f32s(T::load_vector(simd, target), sum)
                } else {
                    sum
                };
                T::store_vector(simd, value, target);
            }
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
        // As many sums as 32 or 16 registers hold beside what they are computed from.
        match S::F32_LANES {
            16 => self.tiles::<S, 12, 1>(simd),
            8 => self.tiles::<S, 6, 2>(simd),
            _ => self.tiles::<S, 6, 4>(simd),
        }
    }
}

impl WeightGradientOfImage<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const TAPS: usize, const VECTORS: usize>(self, simd: S) {
        let geometry = self.geometry;
        let (patch, run) = (geometry.patch(), geometry.kernel * geometry.in_channels);
        for (block, gradient) in self.gradient.chunks_exact_mut(patch * LANES).enumerate() {
            for (ky, gradient) in gradient.chunks_exact_mut(run * LANES).enumerate() {
                for (tile, gradient) in gradient.chunks_mut(TAPS * LANES).enumerate() {
                    for lane in (0..LANES).step_by(VECTORS * S::F32_LANES) {
                        let tile = WeightGradientTile {
                            geometry,
                            row: self.padded.row,
                            rows: &self.image[ky * self.padded.row + tile * TAPS..],
                            dy: &self.dy[block * LANES + lane..],
                        };
                        tile.add::<S, TAPS, VECTORS>(simd, &mut gradient[lane..]);
                    }
                }
            }
        }
    }
}

struct WeightGradientTile<'a> {
    geometry: &'a Geometry,
    row: usize,
    /// From the first tap.
    rows: &'a [f32],
    /// From the first of the output channels.
    dy: &'a [f32],
}

impl WeightGradientTile<'_> {
    /// `TAPS` taps of `VECTORS` vectors of output channels, over all pixels of an image.
    #[inline(always)]
    fn add<S: Simd, const TAPS: usize, const VECTORS: usize>(&self, simd: S, gradient: &mut [f32]) {
        let geometry = self.geometry;
        let (width, step) = (geometry.out_width(), geometry.stride * geometry.in_channels);
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; TAPS];
        for out_y in 0..geometry.out_height() {
            let line = &self.rows[out_y * geometry.stride * self.row..];
            for out_x in 0..width {
                let pixel = &self.dy[(out_y * width + out_x) * geometry.out_channels..];
                let pixel = &S::as_simd_f32s(&pixel[..VECTORS * S::F32_LANES]).0[..VECTORS];
                let taps = &line[out_x * step..][..TAPS];
                for tap in 0..TAPS {
                    let tap_value = simd.splat_f32s(taps[tap]);
                    for vector in 0..VECTORS {
                        let sum = &mut sums[tap][vector];
                        *sum = simd.mul_add_e_f32s(tap_value, pixel[vector], *sum);
                    }
                }
            }
        }
        // A last tile that reaches past the run has fewer places for its sums; the rest is dropped.
        for (target, sums) in gradient.chunks_mut(LANES).zip(sums) {
            let target = S::as_mut_simd_f32s(&mut target[..VECTORS * S::F32_LANES]).0;
            for (target, sum) in target.iter_mut().zip(sums) {
                *target = simd.add_f32s(*target, sum);
            }
        }
    }
}
