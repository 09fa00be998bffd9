//! Convolution as matrix products over patches that stay in cache.
//!
//! A task gathers the patches of a band of output lines (im2col) into scratch memory of about the size of the L2 cache and
//! multiplies them with the packed weights. Small maps put several images into one band. Where a patch is a pixel of the
//! source itself (1x1, stride 1) nothing is gathered.
//!
//! The input gradient with stride s is s² such convolutions of the output's gradient, one for each place that an input pixel
//! may have within a stride: each uses the taps that reach it, and nothing is scattered.

mod weight_gradient;

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::super::Geometry;
use super::window::{Window, row_len};
use crate::ops::element::{Element, store_sums};
use crate::ops::factor::{Factor, words};
use crate::ops::lanes::vectorized;
use crate::ops::product::panels::{Order, Weights, panels_len};
use crate::ops::product::{Left, Product, Right};
use crate::ops::scratch::with_scratch;

pub use weight_gradient::backward_weight;

/// Scratch that a band of patches should fill: about half of an L2 cache.
const BAND_BYTES: usize = 1 << 19;
/// Bounds of the rows of a band: fewer read the weights too often, more leave the cache for nothing.
const BAND_ROWS: Range<usize> = 384..2048;

/// `y (+)= conv(x, w)`.
pub fn forward<T: Element>(geometry: &Geometry, x: &[T], w: &[f32], y: &mut [T], accumulate: bool) {
    let window = Window::forward(geometry);
    let weights = Weights {
        values: w,
        columns: geometry.out_channels,
        order: Order::Columns(window.patch()),
    };
    convolve(&window, weights, x, y, accumulate);
}

/// One output of `weights.columns` channels for every pixel of the window's grid.
fn convolve<T: Element>(
    window: &Window,
    weights: Weights<'_>,
    source: &[T],
    target: &mut [T],
    accumulate: bool,
) {
    let channels = weights.columns;
    let [height, width] = window.grid;
    let lines = band_lines::<T>(window, source.len() / window.image() * height);
    weights.with_panels::<T::Factor>(|panels| {
        target
            .par_chunks_mut(lines * width * channels)
            .enumerate()
            .for_each(|(band, target)| {
                let first = band * lines;
                let lines = first..first + target.len() / channels / width;
                with_patches(window, source, lines, |patches| {
                    let patch = window.patch();
                    multiply::<T::Factor, T>(patch, patches, panels, target, channels, accumulate);
                });
            });
    });
}

/// `target[rows, channels] (+)= patches[rows, patch] · panels`.
fn multiply<F: Factor, T: Element>(
    patch: usize,
    patches: &[f32],
    panels: &[f32],
    target: &mut [T],
    channels: usize,
    accumulate: bool,
) {
    let inner = words::<F>(patch);
    Product {
        rows: target.len() / channels,
        inner,
        columns: channels,
        left: Left {
            words: patches,
            row_stride: inner,
            column_stride: 1,
        },
        right: Right::panels(panels, inner),
        target,
        target_stride: channels,
        accumulate,
        factor: PhantomData::<F>,
    }
    .run();
}

/// Lines of the grid (of all images, counted through) of one band: equal shares of about the size of [`BAND_BYTES`].
fn band_lines<T: Element>(window: &Window, lines: usize) -> usize {
    let bytes = 4 * words::<T::Factor>(window.patch());
    let rows = (BAND_BYTES / bytes).clamp(BAND_ROWS.start, BAND_ROWS.end);
    let bands = (lines * window.grid[1] / rows).next_multiple_of(rayon::current_num_threads());
    lines.div_ceil(bands.max(1)).max(1)
}

/// Calls `f` with the patches of the given lines, in words, one row a pixel.
fn with_patches<T: Element>(
    window: &Window,
    source: &[T],
    lines: Range<usize>,
    f: impl FnOnce(&[f32]),
) {
    let count = lines.len() * window.grid[1];
    let row = row_len::<T::Factor>(window.patch());
    if window.is_identity() && row == window.patch() {
        let start = lines.start * window.grid[1] * row;
        let pixels = T::as_factors(&source[start..][..count * row]);
        if let Some(patches) = pixels.and_then(T::Factor::as_words) {
            return f(patches);
        }
    }
    with_scratch(count * row / T::Factor::DEPTH, |patches| {
        vectorized(
            #[inline(always)]
            || window.gather(source, lines, row, T::Factor::of_words(patches)),
        );
        f(patches);
    });
}

/// `dx (+)= ` gradient with respect to the input.
pub fn backward_data<T: Element>(
    geometry: &Geometry,
    dy: &[T],
    w: &[f32],
    dx: &mut [T],
    accumulate: bool,
) {
    let phases: Vec<Phase<'_>> = (0..geometry.stride * geometry.stride)
        .map(|index| Phase::new(geometry, [index / geometry.stride, index % geometry.stride]))
        .collect();
    if let [phase] = &phases[..] {
        return convolve(&phase.window, phase.weights(w), dy, dx, accumulate);
    }
    let lengths = phases.iter().map(Phase::panels_len::<T::Factor>);
    with_scratch(lengths.clone().sum(), |scratch| {
        let mut panels = Vec::new();
        let mut rest = &mut *scratch;
        for (phase, length) in phases.iter().zip(lengths) {
            let (own, others) = rest.split_at_mut(length);
            phase.weights(w).pack::<T::Factor>(own);
            panels.push(&*own);
            rest = others;
        }
        let images = images_of_a_task(geometry);
        dx.par_chunks_mut(images * geometry.in_image())
            .zip(dy.par_chunks(images * geometry.out_image()))
            .for_each(|(dx, dy)| {
                for (phase, panels) in phases.iter().zip(&panels) {
                    phase.run(dy, panels, dx, accumulate);
                }
            });
    });
}

/// Images whose input pixels of one phase fill a band, at most an even share.
fn images_of_a_task(geometry: &Geometry) -> usize {
    let pixels = geometry.height * geometry.width / geometry.stride / geometry.stride;
    let even_share = geometry.batch.div_ceil(rayon::current_num_threads());
    (BAND_ROWS.start / pixels.max(1)).clamp(1, even_share.max(1))
}

/// The input pixels (y, x) with (y, x) mod stride = `place`.
struct Phase<'a> {
    geometry: &'a Geometry,
    place: [usize; 2],
    /// Over the output's gradient.
    window: Window,
    /// Where the weights of the window's taps begin, for each channel of the gradient.
    places: Vec<usize>,
}

impl<'a> Phase<'a> {
    fn new(geometry: &'a Geometry, place: [usize; 2]) -> Self {
        let stride = geometry.stride;
        // The first tap that reaches these pixels; more follow a stride apart.
        let first = place.map(|place| (place + geometry.padding) % stride);
        let taps = first.map(|first| geometry.kernel.saturating_sub(first).div_ceil(stride));
        // It reads the gradient at (place + padding − first) / stride, each further one a pixel before.
        let origin = [0, 1].map(|side| {
            let nearest = (place[side] + geometry.padding - first[side]) / stride;
            nearest as isize + 1 - taps[side] as isize
        });
        let sides = [geometry.height, geometry.width];
        let window = Window {
            height: geometry.out_height(),
            width: geometry.out_width(),
            channels: geometry.out_channels,
            taps,
            step: 1,
            origin,
            grid: [0, 1].map(|side| sides[side].saturating_sub(place[side]).div_ceil(stride)),
        };
        let kernel = geometry.kernel;
        let mut places = Vec::with_capacity(window.patch());
        for y in (0..taps[0]).rev().map(|tap| first[0] + tap * stride) {
            for x in (0..taps[1]).rev().map(|tap| first[1] + tap * stride) {
                let outputs = 0..geometry.out_channels;
                places.extend(
                    outputs.map(|o| ((o * kernel + y) * kernel + x) * geometry.in_channels),
                );
            }
        }
        Self {
            geometry,
            place,
            window,
            places,
        }
    }

    fn weights<'b>(&'b self, w: &'b [f32]) -> Weights<'b> {
        Weights {
            values: w,
            columns: self.geometry.in_channels,
            order: Order::Rows(&self.places),
        }
    }

    fn panels_len<F: Factor>(&self) -> usize {
        panels_len::<F>(self.window.patch(), self.geometry.in_channels)
    }

    /// `dx (+)= ` the gradient at the pixels of this phase, for some images.
    fn run<T: Element>(&self, dy: &[T], panels: &[f32], dx: &mut [T], accumulate: bool) {
        // No tap reaches these pixels.
        if self.places.is_empty() && accumulate {
            return;
        }
        let channels = self.geometry.in_channels;
        let lines = dx.len() / self.geometry.in_image() * self.window.grid[0];
        with_scratch(lines * self.window.grid[1] * channels, |computed| {
            if self.places.is_empty() {
                computed.fill(0.0);
            } else {
                with_patches(&self.window, dy, 0..lines, |patches| {
                    let patch = self.window.patch();
                    multiply::<T::Factor, f32>(patch, patches, panels, computed, channels, false);
                });
            }
            vectorized(
                #[inline(always)]
                || self.spread(computed, dx, accumulate),
            );
        });
    }

    /// From `[images, grid, channels]` to every `stride`th pixel.
    #[inline(always)]
    fn spread<T: Element>(&self, computed: &[f32], dx: &mut [T], accumulate: bool) {
        let Geometry {
            width,
            in_channels: channels,
            stride,
            ..
        } = *self.geometry;
        let mut pixels = computed.chunks_exact(channels);
        for image in dx.chunks_exact_mut(self.geometry.in_image()) {
            for y in 0..self.window.grid[0] {
                let line = &mut image[(y * stride + self.place[0]) * width * channels..];
                for x in 0..self.window.grid[1] {
                    if let Some(pixel) = pixels.next() {
                        let start = (x * stride + self.place[1]) * channels;
                        store_sums(pixel, &mut line[start..][..channels], accumulate);
                    }
                }
            }
        }
    }
}
