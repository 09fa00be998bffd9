//! Convolution of stride 1 on tile registers, without patches.
//!
//! Zero-padded images lie one behind the other on one grid, on which neighbours share their padding. Every place of the
//! grid is taken for an output: what a tap of the kernel reads for all of them is then the grid itself, shifted by a
//! constant, and the rows of a tile are neighbouring places. Outputs in the padding are dropped (6 % of them for maps of 32
//! pixels, 21 % for 8, 36 % for 4). Copying patches would take as long as tiles take to multiply them.

mod grid;

use std::marker::PhantomData;

use rayon::prelude::*;

use super::super::Geometry;
use super::shares::{band_words, sum_of_shares};
use crate::ops::element::Element;
use crate::ops::factor::Factor;
use crate::ops::lanes::has_tiles;
use crate::ops::product::panels::{Order, Weights};
use crate::ops::product::tiles::{RunProduct, TILE};
use crate::ops::product::{Left, PANEL, Product, Right};
use crate::ops::scratch::with_scratch;
use grid::Grid;

/// Channels that a place must have a multiple of.
const CHANNELS: usize = 16;
/// On maps of 4 pixels, with a third of their grid for padding, they are as quick as patches (measured).
const LEAST_WIDTH: usize = 4;

/// Whether these kernels are meant for a convolution of `T`.
pub fn suits<T: Element>(geometry: &Geometry) -> bool {
    T::Factor::DEPTH > 1
        && has_tiles()
        && geometry.stride == 1
        && geometry.kernel > 1
        && geometry.kernel == 2 * geometry.padding + 1
        && geometry.in_channels.is_multiple_of(CHANNELS)
        && geometry.out_channels.is_multiple_of(CHANNELS)
        && geometry.width >= LEAST_WIDTH
}

/// Whether that holds for the weight gradient, too: on the smallest maps with many channels, patches stay in cache beside a
/// large gradient where grids with their padding do not (measured: 512 channels on 4x4 maps, 0.7).
pub fn suits_weight_gradient(geometry: &Geometry) -> bool {
    geometry.width > 4 || geometry.in_channels <= 256
}

/// `y (+)= conv(x, w)`.
pub fn forward<T: Element>(geometry: &Geometry, x: &[T], w: &[f32], y: &mut [T], accumulate: bool) {
    let Geometry {
        kernel,
        in_channels,
        ..
    } = *geometry;
    let grid = Grid::new(geometry, in_channels);
    let taps = grid.taps();
    // Each line of taps is filled up with zeros.
    let mut widened = Vec::new();
    let values = if taps == kernel {
        w
    } else {
        widened.resize(w.len() / kernel * taps, 0.0);
        let lines = widened.chunks_exact_mut(taps * in_channels);
        for (line, source) in lines.zip(w.chunks_exact(kernel * in_channels)) {
            line[..source.len()].copy_from_slice(source);
        }
        &widened
    };
    let weights = Weights {
        values,
        columns: geometry.out_channels,
        order: Order::Columns(kernel * taps * in_channels),
    };
    convolve(&grid, weights, x, y, accumulate);
}

/// `dx (+)= ` gradient with respect to the input: the convolution of the output's gradient with the kernel turned by 180°.
pub fn backward_data<T: Element>(
    geometry: &Geometry,
    dy: &[T],
    w: &[f32],
    dx: &mut [T],
    accumulate: bool,
) {
    let Geometry {
        kernel,
        in_channels,
        out_channels,
        ..
    } = *geometry;
    let grid = Grid::new(geometry, out_channels);
    let taps = grid.taps();
    let mut extended = Vec::new();
    let values = if taps == kernel {
        w
    } else {
        extended.extend_from_slice(w);
        extended.resize(w.len() + in_channels, 0.0);
        &extended
    };
    let mut places = Vec::with_capacity(kernel * taps * out_channels);
    for y in (0..kernel).rev() {
        for tap in 0..taps {
            let place = |output: usize| match kernel.checked_sub(tap + 1) {
                Some(x) => ((output * kernel + y) * kernel + x) * in_channels,
                None => w.len(),
            };
            places.extend((0..out_channels).map(place));
        }
    }
    let weights = Weights {
        values,
        columns: in_channels,
        order: Order::Rows(&places),
    };
    convolve(&grid, weights, dy, dx, accumulate);
}

/// `weights.columns` channels for every pixel of the source.
fn convolve<T: Element>(
    grid: &Grid,
    weights: Weights<'_>,
    source: &[T],
    target: &mut [T],
    accumulate: bool,
) {
    let channels = weights.columns;
    let inner = grid.kernel() * grid.taps() * grid.channels / T::Factor::DEPTH;
    let images = grid.images_of_a_task::<T>(source.len() / grid.image());
    let pixels = grid.height * grid.width;
    let place = grid.channels / T::Factor::DEPTH;
    let lines = grid.pitch() * place;
    let runs: Vec<usize> = (0..grid.kernel()).map(|line| line * lines).collect();
    weights.with_panels::<T::Factor>(|panels| {
        target
            .par_chunks_mut(images * pixels * channels)
            .zip(source.par_chunks(images * grid.image()))
            .for_each(|(target, source)| {
                let images = source.len() / grid.image();
                with_scratch(grid.len(images) * place, |words| {
                    grid.fill(source, T::Factor::of_words(words));
                    let product = Product {
                        rows: images * grid.places(),
                        inner,
                        columns: channels,
                        left: Left {
                            words,
                            row_stride: place,
                            column_stride: 1,
                        },
                        right: Right::panels(panels, inner),
                        target,
                        target_stride: channels,
                        accumulate,
                        factor: PhantomData::<T::Factor>,
                    };
                    RunProduct {
                        product,
                        runs: &runs,
                        places: *grid,
                    }
                    .run();
                });
            });
    });
}

/// `dw (+)= ` gradient with respect to the weights: for every tap a product of the output's gradient with the shifted grid,
/// summed over pairs of places.
pub fn backward_weight<T: Element>(
    geometry: &Geometry,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
    accumulate: bool,
) {
    let x_grid = Grid::new(geometry, geometry.in_channels);
    let dy_grid = Grid::new(geometry, geometry.out_channels);
    let places = 2 * band_words::<T::Factor>(geometry.out_channels, geometry.patch());
    let images = x_grid
        .images_of_a_task::<f32>(geometry.batch)
        .max(places.div_ceil(x_grid.places()));
    sum_of_shares(geometry.batch, dw, accumulate, |share, gradient| {
        if share.is_empty() {
            gradient.fill(0.0);
        }
        for first in share.clone().step_by(images) {
            let images = first..(first + images).min(share.end);
            let [x, dy] = [(x, &x_grid), (dy, &dy_grid)]
                .map(|(v, grid)| &v[images.start * grid.image()..images.end * grid.image()]);
            // Pairs of places, filled up to whole tiles.
            let pairs = (images.len() * x_grid.places())
                .div_ceil(2)
                .next_multiple_of(TILE);
            let gradient_words = pairs * geometry.out_channels;
            let source_words = (2 * pairs + 2 * x_grid.lead()) * geometry.in_channels;
            with_scratch(gradient_words + source_words, |scratch| {
                let (left, right) = scratch.split_at_mut(gradient_words);
                dy_grid.pairs_by_channel(dy, pairs, left);
                x_grid.pairs(x, right);
                add_products::<T::Factor>(&x_grid, left, right, gradient, first != share.start);
            });
        }
    });
}

/// `gradient (+)= left · right`, where `left` is `[channels, pairs]` words of the output's gradient and `right` one row of
/// words for every place: a pair of it and the next one.
fn add_products<F: Factor>(
    grid: &Grid,
    left: &[f32],
    right: &[f32],
    gradient: &mut [f32],
    accumulate: bool,
) {
    let line = grid.kernel() * grid.channels;
    let patch = grid.kernel() * line;
    let channels = gradient.len() / patch;
    let pairs = left.len() / channels;
    for index in 0..grid.kernel() {
        Product {
            rows: channels,
            inner: pairs,
            columns: line,
            left: Left {
                words: left,
                row_stride: pairs,
                column_stride: 1,
            },
            // The taps of a line of the kernel read neighbouring places.
            right: Right {
                words: &right[index * grid.pitch() * grid.channels..],
                row_stride: 2 * grid.channels,
                panel_stride: PANEL,
            },
            target: &mut gradient[index * line..],
            target_stride: patch,
            accumulate,
            factor: PhantomData::<F>,
        }
        .run();
    }
}
