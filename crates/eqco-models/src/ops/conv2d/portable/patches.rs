//! Convolution as matrix products over patches that stay in cache.
//!
//! A task gathers the patches of a band of output rows (im2col) into scratch memory of about the size of the L2 cache
//! and multiplies them with the weights. Small maps put several images into one band. A 1x1 convolution with stride 1
//! needs no gathering. Input gradients of other strides than 1 scatter patch gradients (col2im).

use std::ops::Range;

use rayon::prelude::*;

use super::super::Geometry;
use crate::ops::element::{Element, load_all};
use crate::ops::lanes::{CHUNK, split, vectorized};
use crate::ops::matmul::{View, matmul};
use crate::ops::scratch::with_scratch;

/// Scratch that a band of patches should fill: about half of an L2 cache.
const BAND_BYTES: usize = 1 << 20;
/// Bounds of the rows of a band: fewer waste the packing of the weights, more leave the cache for nothing.
const BAND_ROWS: Range<usize> = 384..2048;

/// `dx (+)= ` gradient with respect to the input, by scattering patch gradients (or, for 1x1, one product).
pub fn backward_data<T: Element>(
    geometry: &Geometry,
    dy: &[T],
    w: &[f32],
    dx: &mut [T],
    accumulate: bool,
) {
    if geometry.is_pointwise() {
        return pointwise_backward_data(geometry, dy, w, dx, accumulate);
    }
    dx.par_chunks_mut(geometry.in_image())
        .zip(dy.par_chunks(geometry.out_image()))
        .for_each(|(dx, dy)| {
            T::with_target(dx, accumulate, |dx, accumulate| {
                scatter_image(geometry, dy, w, dx, accumulate);
            });
        });
}

/// `dw (+)= ` gradient with respect to the weights. Each thread sums over its own share of the images.
pub fn backward_weight<T: Element>(
    geometry: &Geometry,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
    accumulate: bool,
) {
    let lines = geometry.batch * geometry.out_height();
    let shares = split(lines, rayon::current_num_threads());
    let length = dw.len();
    with_scratch(length * shares.len(), |partials| {
        partials
            .par_chunks_mut(length)
            .zip(shares)
            .for_each(|(gradient, share)| weight_gradient_of(geometry, x, dy, share, gradient));
        let (first, rest) = partials.split_at(length);
        dw.par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(chunk, dw)| {
                let start = chunk * CHUNK;
                vectorized(
                    #[inline(always)]
                    || {
                        if accumulate {
                            add(dw, &first[start..]);
                        } else {
                            dw.copy_from_slice(&first[start..start + dw.len()]);
                        }
                        rest.chunks_exact(length)
                            .for_each(|partial| add(dw, &partial[start..]));
                    },
                );
            });
    });
}

#[inline(always)]
fn add(target: &mut [f32], source: &[f32]) {
    target.iter_mut().zip(source).for_each(|(t, s)| *t += s);
}

/// `y (+)= conv(x, w)`.
pub fn forward<T: Element>(geometry: &Geometry, x: &[T], w: &[f32], y: &mut [T], accumulate: bool) {
    let (width, channels) = (geometry.out_width(), geometry.out_channels);
    let lines = band_lines(geometry);
    let weights = View::row_major(w, channels, geometry.patch()).transposed();
    y.par_chunks_mut(lines * width * channels)
        .enumerate()
        .for_each(|(band, y)| {
            let rows = y.len() / channels;
            let first = band * lines;
            with_patches(geometry, x, first..first + rows / width, |patches| {
                let patches = View::row_major(patches, rows, geometry.patch());
                T::with_target(y, accumulate, |y, accumulate| {
                    matmul(y, accumulate, patches, weights);
                });
            });
        });
}

fn weight_gradient_of<T: Element>(
    geometry: &Geometry,
    x: &[T],
    dy: &[T],
    share: Range<usize>,
    gradient: &mut [f32],
) {
    let (width, channels, patch) = (
        geometry.out_width(),
        geometry.out_channels,
        geometry.patch(),
    );
    if share.is_empty() {
        gradient.fill(0.0);
    }
    let lines = band_lines(geometry);
    for first in share.clone().step_by(lines) {
        let band = first..(first + lines).min(share.end);
        let rows = band.len() * width;
        let dy = &dy[first * width * channels..][..rows * channels];
        T::with_widened(dy, |dy| {
            with_patches(geometry, x, band, |patches| {
                matmul(
                    gradient,
                    first != share.start,
                    View::row_major(dy, rows, channels).transposed(),
                    View::row_major(patches, rows, patch),
                );
            });
        });
    }
}

/// Output lines (of all images, counted through) of one band.
fn band_lines(geometry: &Geometry) -> usize {
    let lines = geometry.batch * geometry.out_height();
    let rows = (BAND_BYTES / 4 / geometry.patch()).clamp(BAND_ROWS.start, BAND_ROWS.end);
    let even_share = lines.div_ceil(rayon::current_num_threads());
    (rows / geometry.out_width()).clamp(1, even_share.max(1))
}

/// Calls `f` with the patches of the given output lines, `[rows, patch]`.
fn with_patches<T: Element>(
    geometry: &Geometry,
    x: &[T],
    lines: Range<usize>,
    f: impl FnOnce(&[f32]),
) {
    let rows = lines.len() * geometry.out_width();
    if geometry.is_pointwise() {
        let start = lines.start * geometry.width * geometry.in_channels;
        return T::with_widened(&x[start..][..rows * geometry.in_channels], f);
    }
    with_scratch(rows * geometry.patch(), |patches| {
        vectorized(
            #[inline(always)]
            || gather(geometry, x, lines, patches),
        );
        f(patches);
    });
}

#[inline(always)]
fn gather<T: Element>(geometry: &Geometry, x: &[T], lines: Range<usize>, patches: &mut [f32]) {
    let (height, patch) = (geometry.out_height(), geometry.patch());
    let mut rows = patches.chunks_exact_mut(patch);
    for line in lines {
        let image = &x[line / height * geometry.in_image()..][..geometry.in_image()];
        for column in 0..geometry.out_width() {
            if let Some(row) = rows.next() {
                gather_patch(geometry, image, line % height, column, row);
            }
        }
    }
}

#[inline(always)]
fn gather_patch<T: Element>(
    geometry: &Geometry,
    image: &[T],
    out_y: usize,
    out_x: usize,
    row: &mut [f32],
) {
    let channels = geometry.in_channels;
    let inside_x = kernel_range(out_x, geometry.width, geometry);
    let inside_y = kernel_range(out_y, geometry.height, geometry);
    for (ky, segment) in row.chunks_exact_mut(geometry.kernel * channels).enumerate() {
        if !inside_y.contains(&ky) || inside_x.is_empty() {
            segment.fill(0.0);
            continue;
        }
        let y = out_y * geometry.stride + ky - geometry.padding;
        let x = out_x * geometry.stride + inside_x.start - geometry.padding;
        let source = &image[(y * geometry.width + x) * channels..][..inside_x.len() * channels];
        segment[..inside_x.start * channels].fill(0.0);
        load_all(
            source,
            &mut segment[inside_x.start * channels..inside_x.end * channels],
        );
        segment[inside_x.end * channels..].fill(0.0);
    }
}

/// Kernel positions that lie inside the image for output position `out` along a side of `len` pixels.
#[inline(always)]
fn kernel_range(out: usize, len: usize, geometry: &Geometry) -> Range<usize> {
    let origin = out * geometry.stride;
    let start = geometry.padding.saturating_sub(origin).min(geometry.kernel);
    let end = (len + geometry.padding)
        .saturating_sub(origin)
        .min(geometry.kernel);
    start..end.max(start)
}

fn scatter_image<T: Element>(
    geometry: &Geometry,
    dy: &[T],
    w: &[f32],
    dx: &mut [f32],
    accumulate: bool,
) {
    let (width, channels, patch) = (
        geometry.out_width(),
        geometry.out_channels,
        geometry.patch(),
    );
    if !accumulate {
        dx.fill(0.0);
    }
    let weights = View::row_major(w, channels, patch);
    let lines = (BAND_BYTES / 4 / patch / width).clamp(1, geometry.out_height());
    for first in (0..geometry.out_height()).step_by(lines) {
        let band = first..(first + lines).min(geometry.out_height());
        let rows = band.len() * width;
        with_scratch(rows * patch, |patches| {
            let dy = &dy[first * width * channels..][..rows * channels];
            T::with_widened(dy, |dy| {
                matmul(patches, false, View::row_major(dy, rows, channels), weights);
            });
            vectorized(
                #[inline(always)]
                || scatter(geometry, patches, band, dx),
            );
        });
    }
}

#[inline(always)]
fn scatter(geometry: &Geometry, patches: &[f32], lines: Range<usize>, dx: &mut [f32]) {
    let (channels, width) = (geometry.in_channels, geometry.out_width());
    for (row, patch) in patches.chunks_exact(geometry.patch()).enumerate() {
        let (out_y, out_x) = (lines.start + row / width, row % width);
        let inside_x = kernel_range(out_x, geometry.width, geometry);
        if inside_x.is_empty() {
            continue;
        }
        for ky in kernel_range(out_y, geometry.height, geometry) {
            let y = out_y * geometry.stride + ky - geometry.padding;
            let x = out_x * geometry.stride + inside_x.start - geometry.padding;
            let target =
                &mut dx[(y * geometry.width + x) * channels..][..inside_x.len() * channels];
            add(
                target,
                &patch[(ky * geometry.kernel + inside_x.start) * channels..],
            );
        }
    }
}

fn pointwise_backward_data<T: Element>(
    geometry: &Geometry,
    dy: &[T],
    w: &[f32],
    dx: &mut [T],
    accumulate: bool,
) {
    let (inputs, outputs) = (geometry.in_channels, geometry.out_channels);
    let rows = band_lines(geometry) * geometry.out_width();
    let weights = View::row_major(w, outputs, inputs);
    dx.par_chunks_mut(rows * inputs)
        .zip(dy.par_chunks(rows * outputs))
        .for_each(|(dx, dy)| {
            T::with_widened(dy, |dy| {
                let dy = View::row_major(dy, dy.len() / outputs, outputs);
                T::with_target(dx, accumulate, |dx, accumulate| {
                    matmul(dx, accumulate, dy, weights);
                });
            });
        });
}
