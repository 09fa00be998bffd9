//! The gradient with respect to the weights: a product of two tall matrices, output gradients and patches, over all pixels.
//!
//! Short bands of both are copied before they are multiplied, one row of words a pixel: what a tile of the gradient reads
//! of a band stays in the first-level cache. Rows are an odd number of cache lines apart, because rows a power of two
//! apart would fall into few of the cache's sets and evict each other.

use std::marker::PhantomData;
use std::ops::Range;

use super::super::super::Geometry;
use super::super::shares::{band_words, sum_of_shares};
use super::super::window::Window;
use crate::ops::element::Element;
use crate::ops::factor::{Factor, words};
use crate::ops::lanes::vectorized;
use crate::ops::product::{LINE, Left, PANEL, Product, Right};
use crate::ops::scratch::with_scratch;

/// `dw (+)= ` gradient with respect to the weights. Each thread sums over its own share of the lines.
pub fn backward_weight<T: Element>(
    geometry: &Geometry,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
    accumulate: bool,
) {
    let window = Window::forward(geometry);
    let lines = geometry.batch * geometry.out_height();
    sum_of_shares(lines, dw, accumulate, |share, gradient| {
        weight_gradient_of(&window, x, dy, share, gradient);
    });
}

/// The sum over some lines, into `gradient` `[channels, patch]`.
fn weight_gradient_of<T: Element>(
    window: &Window,
    x: &[T],
    dy: &[T],
    share: Range<usize>,
    gradient: &mut [f32],
) {
    if share.is_empty() {
        gradient.fill(0.0);
    }
    let patch = window.patch();
    let channels = gradient.len() / patch;
    let width = window.grid[1];
    let lines = (band_words::<T::Factor>(channels, patch) * T::Factor::DEPTH / width).max(1);
    let most = words::<T::Factor>(lines.min(share.len()) * width);
    with_scratch(
        most * (row_stride(channels) + row_stride(patch)),
        |scratch| {
            let (left, right) = scratch.split_at_mut(most * row_stride(channels));
            for first in share.clone().step_by(lines) {
                let band = first..(first + lines).min(share.end);
                let rows = band.len() * width;
                let dy = &dy[first * width * channels..][..rows * channels];
                vectorized(
                    #[inline(always)]
                    || lay_out(dy, channels, left),
                );
                lay_out_patches(window, x, band, right);
                Product {
                    rows: channels,
                    inner: words::<T::Factor>(rows),
                    columns: patch,
                    left: Left {
                        words: left,
                        row_stride: 1,
                        column_stride: row_stride(channels),
                    },
                    right: Right {
                        words: right,
                        row_stride: row_stride(patch),
                        panel_stride: PANEL,
                    },
                    target: &mut *gradient,
                    target_stride: patch,
                    accumulate: first != share.start,
                    factor: PhantomData::<T::Factor>,
                }
                .run();
            }
        },
    );
}

/// Words from one row to the next: an odd number of cache lines.
fn row_stride(columns: usize) -> usize {
    (columns.div_ceil(LINE) | 1) * LINE
}

/// The patches of some lines of the grid, as [`lay_out`] does it.
fn lay_out_patches<T: Element>(window: &Window, x: &[T], lines: Range<usize>, target: &mut [f32]) {
    let patch = window.patch();
    let count = lines.len() * window.grid[1];
    if window.is_identity() {
        let pixels = &x[lines.start * window.grid[1] * patch..][..count * patch];
        vectorized(
            #[inline(always)]
            || lay_out(pixels, patch, target),
        );
    } else if T::Factor::DEPTH == 1 {
        vectorized(
            #[inline(always)]
            || window.gather(x, lines, row_stride(patch), T::Factor::of_words(target)),
        );
    } else {
        with_scratch(words::<T::Factor>(count * patch), |patches| {
            let patches = &mut T::Factor::of_words(patches)[..count * patch];
            vectorized(
                #[inline(always)]
                || {
                    window.gather(x, lines, patch, patches);
                    lay_out(patches, patch, target);
                },
            );
        });
    }
}

/// Copies `[pixels, columns]` elements to words `[pixels / depth, columns]`, rows [`row_stride`] apart. What lies between
/// the rows is not written.
#[inline(always)]
fn lay_out<T: Element>(pixels: &[T], columns: usize, target: &mut [f32]) {
    let rows = target.chunks_exact_mut(row_stride(columns));
    for (pixels, row) in pixels.chunks(T::Factor::DEPTH * columns).zip(rows) {
        let row = &mut row[..columns];
        match T::as_factors(pixels) {
            Some(factors) if T::Factor::DEPTH > 1 => {
                let (first, second) = factors.split_at(columns);
                if second.is_empty() {
                    interleave_last(first, row);
                } else {
                    T::Factor::interleave([first, second], row);
                }
            }
            _ => T::copy_factors(pixels, T::Factor::of_words(row)),
        }
    }
}

/// The words of a last pixel that has no other one beside it.
#[inline(always)]
fn interleave_last<F: Factor>(pixel: &[F], words: &mut [f32]) {
    let zeros = [F::ZERO; LINE];
    for (factors, words) in pixel.chunks(LINE).zip(words.chunks_mut(LINE)) {
        F::interleave([factors, &zeros[..factors.len()]], words);
    }
}
