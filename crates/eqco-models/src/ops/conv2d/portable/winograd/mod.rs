//! Winograd's minimal filtering F(4x4,3x3): 36 products for the 16 outputs of a tile instead of 144.
//!
//! A 3x3 convolution of stride 1 becomes transforms of 6x6 input tiles and of the weights, one matrix product
//! `[tiles, I]·[I, O]` for each of the 36 points, and a transform back (Lavin and Gray, arXiv 1509.09308). The input gradient is
//! the same with turned weights; the weight gradient is the transposed algorithm, with its sum over tiles as the inner
//! dimension of the products.
//!
//! Where the transformed weights fit the cache, a thread takes a block of tiles through all three phases. Where they do
//! not (many channels, small maps), the transformed tiles of the whole batch are kept, and a thread takes a range
//! of channels, so that transformed weights never leave its cache.
//!
//! Error against sums in double precision, relative to the largest output: 3e-6 for 272 channels (bound of the tests:
//! 6e-6), where a sum in order in f32 is at 1e-6.

mod product;
#[cfg(test)]
mod tests;
mod tiles;
mod tiling;
mod transforms;
mod weights;

use std::ops::Range;

use rayon::prelude::*;

use self::product::{Left, Product, Right};
use self::tiles::{OutputTiles, transform_input, transform_output_gradient};
use self::tiling::Tiling;
use self::transforms::POINTS;
use self::weights::{Direction, GradientOfWeights, Weights, transformed_len};
use super::super::Geometry;
use crate::ops::element::Element;
use crate::ops::lanes::split;
use crate::ops::scratch::with_scratch;

/// More transformed weights than this are handled in ranges of channels.
const MOST_WEIGHTS: usize = POINTS * 128 * 128;
/// Channels of such a range.
const RANGE: usize = 32;
/// Tiles of a block there: enough for each transformed weight that is read.
const TILES: usize = 64;

/// Whether these kernels can compute the convolution: 3x3, stride 1, whole vectors of channels.
pub(super) fn suits(geometry: &Geometry) -> bool {
    geometry.kernel == 3
        && geometry.stride == 1
        && geometry.padding <= 2
        && geometry.in_channels.is_multiple_of(16)
        && geometry.out_channels.is_multiple_of(16)
        && geometry.batch > 0
}

fn fits_cache(geometry: &Geometry) -> bool {
    POINTS * geometry.in_channels * geometry.out_channels <= MOST_WEIGHTS
}

/// `y (+)= conv(x, w)`.
pub(super) fn forward<T: Element>(
    geometry: &Geometry,
    x: &[T],
    w: &[f32],
    y: &mut [T],
    accumulate: bool,
) {
    let weights = Weights {
        values: w,
        inputs: geometry.in_channels,
        direction: Direction::Forward,
    };
    convolve(geometry, x, weights, y, accumulate);
}

/// `dx (+)= ` gradient with respect to the input of the convolution that `geometry` describes.
pub(super) fn backward_data<T: Element>(
    geometry: &Geometry,
    dy: &[T],
    w: &[f32],
    dx: &mut [T],
    accumulate: bool,
) {
    let transposed = Geometry {
        height: geometry.out_height(),
        width: geometry.out_width(),
        in_channels: geometry.out_channels,
        out_channels: geometry.in_channels,
        padding: 2 - geometry.padding,
        ..*geometry
    };
    let weights = Weights {
        values: w,
        inputs: geometry.in_channels,
        direction: Direction::Transposed,
    };
    convolve(&transposed, dy, weights, dx, accumulate);
}

fn convolve<T: Element>(
    geometry: &Geometry,
    x: &[T],
    weights: Weights<'_>,
    y: &mut [T],
    accumulate: bool,
) {
    let tiling = Tiling::new(geometry);
    if fits_cache(geometry) {
        by_blocks(&tiling, x, weights, y, accumulate);
    } else {
        by_channels(&tiling, x, weights, y, accumulate);
    }
}

/// Every thread takes blocks of tiles from input to output.
fn by_blocks<T: Element>(
    tiling: &Tiling,
    x: &[T],
    weights: Weights<'_>,
    y: &mut [T],
    accumulate: bool,
) {
    let (from, to) = (
        tiling.geometry().in_channels,
        tiling.geometry().out_channels,
    );
    let blocks = tiling.blocks(0..tiling.rows(), tiling.cached_tiles());
    let parts = tiling.split_output(&blocks, y);
    with_scratch(transformed_len(from, to), |transformed| {
        weights.transform(0..to, transformed);
        let weights = &*transformed;
        blocks.into_par_iter().zip(parts).for_each(|(rows, y)| {
            let tiles = rows.len() * tiling.columns;
            with_scratch(POINTS * tiles * (from + to), |scratch| {
                let (inputs, products) = scratch.split_at_mut(POINTS * tiles * from);
                transform_input(tiling, rows.clone(), x, inputs);
                multiply(inputs, from, weights, to, products);
                OutputTiles {
                    tiling,
                    rows,
                    products,
                    first_channel: 0,
                    width: to,
                    y,
                    accumulate,
                }
                .run();
            });
        });
    });
}

/// Transformed tiles of the whole batch, products by ranges of output channels.
fn by_channels<T: Element>(
    tiling: &Tiling,
    x: &[T],
    weights: Weights<'_>,
    y: &mut [T],
    accumulate: bool,
) {
    let (from, to) = (
        tiling.geometry().in_channels,
        tiling.geometry().out_channels,
    );
    let blocks = tiling.blocks(0..tiling.rows(), TILES);
    let all = POINTS * tiling.tiles();
    with_scratch(all * (from + to), |scratch| {
        let (inputs, products) = scratch.split_at_mut(all * from);
        let parts = tiling.split_tiles(&blocks, POINTS * from, inputs);
        blocks.par_iter().zip(parts).for_each(|(rows, inputs)| {
            transform_input(tiling, rows.clone(), x, inputs);
        });
        let inputs = &*inputs;
        products
            .par_chunks_mut(all * RANGE)
            .enumerate()
            .for_each(|(range, products)| {
                let first = range * RANGE;
                let width = RANGE.min(to - first);
                with_scratch(transformed_len(from, width), |transformed| {
                    weights.transform(first..first + width, transformed);
                    for rows in &blocks {
                        let start = POINTS * rows.start * tiling.columns;
                        let count = POINTS * rows.len() * tiling.columns;
                        multiply(
                            &inputs[start * from..][..count * from],
                            from,
                            transformed,
                            width,
                            &mut products[start * width..][..count * width],
                        );
                    }
                });
            });
        let products = &*products;
        let parts = tiling.split_output(&blocks, y);
        blocks.par_iter().zip(parts).for_each(|(rows, y)| {
            for first in (0..to).step_by(RANGE) {
                let width = RANGE.min(to - first);
                let start = POINTS * rows.start * tiling.columns;
                let count = POINTS * rows.len() * tiling.columns;
                OutputTiles {
                    tiling,
                    rows: rows.clone(),
                    products: &products[all * first + start * width..][..count * width],
                    first_channel: first,
                    width,
                    y,
                    accumulate,
                }
                .run();
            }
        });
    });
}

/// For every point, `products[tiles, to] = inputs[tiles, from] · weights[from, to]`.
fn multiply(inputs: &[f32], from: usize, weights: &[f32], to: usize, products: &mut [f32]) {
    let tiles = inputs.len() / POINTS / from;
    for ((inputs, weights), products) in inputs
        .chunks_exact(tiles * from)
        .zip(weights.chunks_exact(from * to))
        .zip(products.chunks_exact_mut(tiles * to))
    {
        Product {
            rows: tiles,
            inner: from,
            columns: to,
            left: Left {
                data: inputs,
                row_stride: from,
                column_stride: 1,
            },
            right: Right {
                data: weights,
                row_stride: to,
            },
            target: products,
            target_stride: to,
            accumulate: false,
        }
        .run();
    }
}

/// `dw (+)= ` gradient with respect to the weights.
pub(super) fn backward_weight<T: Element>(
    geometry: &Geometry,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
    accumulate: bool,
) {
    let tiling = Tiling::new(geometry);
    if fits_cache(geometry) {
        weights_by_blocks(&tiling, x, dy, dw, accumulate);
    } else {
        weights_by_channels(&tiling, x, dy, dw, accumulate);
    }
}

/// Each thread sums over its own share of the tile rows.
fn weights_by_blocks<T: Element>(
    tiling: &Tiling,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
    accumulate: bool,
) {
    let geometry = tiling.geometry();
    let (inputs, outputs) = (geometry.in_channels, geometry.out_channels);
    let length = transformed_len(outputs, inputs);
    let shares = split(tiling.rows(), rayon::current_num_threads());
    with_scratch(length * shares.len(), |partials| {
        partials
            .par_chunks_mut(length)
            .zip(shares)
            .for_each(|(sums, share)| {
                for (index, rows) in tiling
                    .blocks(share, tiling.cached_tiles())
                    .into_iter()
                    .enumerate()
                {
                    let tiles = rows.len() * tiling.columns;
                    with_scratch(POINTS * tiles * (inputs + outputs), |scratch| {
                        let (x_tiles, dy_tiles) = scratch.split_at_mut(POINTS * tiles * inputs);
                        transform_input(tiling, rows.clone(), x, x_tiles);
                        transform_output_gradient(tiling, rows, dy, dy_tiles);
                        let gradients = Columns {
                            values: dy_tiles,
                            channels: outputs,
                            range: 0..outputs,
                        };
                        multiply_gradients(gradients, x_tiles, inputs, sums, index > 0);
                    });
                }
            });
        let partials: Vec<&[f32]> = partials.chunks_exact(length).collect();
        dw.par_chunks_mut(9 * inputs)
            .enumerate()
            .for_each(|(output, dw)| {
                let rows: Vec<&[f32]> = partials.iter().map(|p| &p[output * inputs..]).collect();
                GradientOfWeights {
                    partials: &rows,
                    plane: outputs * inputs,
                    width: inputs,
                    gradient: dw,
                    accumulate,
                }
                .run();
            });
    });
}

/// Transformed tiles of the whole batch, sums by ranges of output channels.
fn weights_by_channels<T: Element>(
    tiling: &Tiling,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
    accumulate: bool,
) {
    let geometry = tiling.geometry();
    let (inputs, outputs) = (geometry.in_channels, geometry.out_channels);
    let blocks = tiling.blocks(0..tiling.rows(), TILES);
    let all = POINTS * tiling.tiles();
    with_scratch(all * (inputs + outputs), |scratch| {
        let (x_tiles, dy_tiles) = scratch.split_at_mut(all * inputs);
        let x_parts = tiling.split_tiles(&blocks, POINTS * inputs, x_tiles);
        let dy_parts = tiling.split_tiles(&blocks, POINTS * outputs, dy_tiles);
        let parts = x_parts.into_par_iter().zip(dy_parts);
        blocks
            .par_iter()
            .zip(parts)
            .for_each(|(rows, (x_tiles, dy_tiles))| {
                transform_input(tiling, rows.clone(), x, x_tiles);
                transform_output_gradient(tiling, rows.clone(), dy, dy_tiles);
            });
        let (x_tiles, dy_tiles) = (&*x_tiles, &*dy_tiles);
        dw.par_chunks_mut(RANGE * 9 * inputs)
            .enumerate()
            .for_each(|(range, dw)| {
                let width = dw.len() / 9 / inputs;
                with_scratch(transformed_len(width, inputs), |sums| {
                    for (index, rows) in blocks.iter().enumerate() {
                        let start = POINTS * rows.start * tiling.columns;
                        let count = POINTS * rows.len() * tiling.columns;
                        let gradients = Columns {
                            values: &dy_tiles[start * outputs..][..count * outputs],
                            channels: outputs,
                            range: range * RANGE..range * RANGE + width,
                        };
                        let x_tiles = &x_tiles[start * inputs..][..count * inputs];
                        multiply_gradients(gradients, x_tiles, inputs, sums, index > 0);
                    }
                    GradientOfWeights {
                        partials: &[sums],
                        plane: width * inputs,
                        width: inputs,
                        gradient: dw,
                        accumulate,
                    }
                    .run();
                });
            });
    });
}

/// Some channels of an array `[36, tiles, channels]`.
struct Columns<'a> {
    values: &'a [f32],
    channels: usize,
    range: Range<usize>,
}

/// For every point, `sums[range, inputs] (+)= gradients[tiles, range]' · x_tiles[tiles, inputs]`.
fn multiply_gradients(
    gradients: Columns<'_>,
    x_tiles: &[f32],
    inputs: usize,
    sums: &mut [f32],
    accumulate: bool,
) {
    let tiles = x_tiles.len() / POINTS / inputs;
    let width = gradients.range.len();
    for ((x_tiles, dy_tiles), sums) in x_tiles
        .chunks_exact(tiles * inputs)
        .zip(gradients.values.chunks_exact(tiles * gradients.channels))
        .zip(sums.chunks_exact_mut(width * inputs))
    {
        Product {
            rows: width,
            inner: tiles,
            columns: inputs,
            left: Left {
                data: &dy_tiles[gradients.range.start..],
                row_stride: 1,
                column_stride: gradients.channels,
            },
            right: Right {
                data: x_tiles,
                row_stride: inputs,
            },
            target: sums,
            target_stride: inputs,
            accumulate,
        }
        .run();
    }
}
