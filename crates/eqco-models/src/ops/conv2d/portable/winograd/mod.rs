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
//!
//! Where the CPU multiplies pairs of bf16, the gradients of bf16 maps take their products from transformed tiles and weights that
//! are rounded to bf16: 1.0 to 1.4 % of the root mean square. The forward pass never does.

#[cfg(test)]
mod tests;
mod tiles;
mod tiling;
mod transforms;
mod weights;

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use self::tiles::{OutputTiles, Words, points_len, transform_input, transform_output_gradient};
use self::tiling::Tiling;
use self::transforms::POINTS;
use self::weights::{Direction, GradientOfWeights, Weights, transformed_len};
use super::super::Geometry;
use crate::ops::element::Element;
use crate::ops::factor::{Factor, words};
use crate::ops::lanes::split;
use crate::ops::product::{Left, Product, Right};
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

/// Whether the forward pass is quicker than direct sums of pairs of bf16. Measured, with the transform of the weights as the
/// constant: 36 products of f32 (a tile) take as long as the 81 products of bf16 of nine pixels.
pub(super) fn outruns_pairs(geometry: &Geometry) -> bool {
    let pixels = geometry.batch * geometry.out_height() * geometry.out_width();
    9 * Tiling::new(geometry).tiles() + 440 < pixels
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
    convolve::<T, f32>(geometry, x, weights, y, accumulate);
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
    convolve::<T, T::Factor>(&transposed, dy, weights, dx, accumulate);
}

fn convolve<T: Element, F: Factor>(
    geometry: &Geometry,
    x: &[T],
    weights: Weights<'_>,
    y: &mut [T],
    accumulate: bool,
) {
    let tiling = Tiling::new(geometry);
    if fits_cache(geometry) {
        by_blocks::<T, F>(&tiling, x, weights, y, accumulate);
    } else {
        by_channels::<T, F>(&tiling, x, weights, y, accumulate);
    }
}

/// Every thread takes blocks of tiles from input to output.
fn by_blocks<T: Element, F: Factor>(
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
    with_scratch(transformed_len::<F>(from, to), |transformed| {
        weights.transform::<F>(0..to, transformed);
        let weights = &*transformed;
        blocks.into_par_iter().zip(parts).for_each(|(rows, y)| {
            let tiles = rows.len() * tiling.columns;
            let input_len = points_len::<F>(tiles, from, Words::OfChannels);
            with_scratch(input_len + POINTS * tiles * to, |scratch| {
                let (inputs, products) = scratch.split_at_mut(input_len);
                transform_input::<T, F>(tiling, rows.clone(), x, Words::OfChannels, inputs);
                multiply::<F>(inputs, words::<F>(from), weights, to, products);
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
fn by_channels<T: Element, F: Factor>(
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
    let from_words = words::<F>(from);
    with_scratch(all * (from_words + to), |scratch| {
        let (inputs, products) = scratch.split_at_mut(all * from_words);
        let lengths = blocks
            .iter()
            .map(|rows| POINTS * rows.len() * tiling.columns * from_words);
        let parts = split_parts(lengths, inputs);
        blocks.par_iter().zip(parts).for_each(|(rows, inputs)| {
            transform_input::<T, F>(tiling, rows.clone(), x, Words::OfChannels, inputs);
        });
        let inputs = &*inputs;
        products
            .par_chunks_mut(all * RANGE)
            .enumerate()
            .for_each(|(range, products)| {
                let first = range * RANGE;
                let width = RANGE.min(to - first);
                with_scratch(transformed_len::<F>(from, width), |transformed| {
                    weights.transform::<F>(first..first + width, transformed);
                    for rows in &blocks {
                        let start = POINTS * rows.start * tiling.columns;
                        let count = POINTS * rows.len() * tiling.columns;
                        multiply::<F>(
                            &inputs[start * from_words..][..count * from_words],
                            from_words,
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

/// For every point, `products[tiles, to] = inputs[tiles, from] · weights[from, to]`, `from` in words.
fn multiply<F: Factor>(
    inputs: &[f32],
    from: usize,
    weights: &[f32],
    to: usize,
    products: &mut [f32],
) {
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
                words: inputs,
                row_stride: from,
                column_stride: 1,
            },
            right: Right::row_major(weights, to),
            target: products,
            target_stride: to,
            accumulate: false,
            factor: PhantomData::<F>,
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
    let length = transformed_len::<f32>(outputs, inputs);
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
                    let row = points_len::<T::Factor>(tiles, 1, Words::OfTiles);
                    with_scratch(row * (inputs + outputs), |scratch| {
                        let (x_tiles, dy_tiles) = scratch.split_at_mut(row * inputs);
                        let kind = Words::OfTiles;
                        transform_input::<T, T::Factor>(tiling, rows.clone(), x, kind, x_tiles);
                        transform_output_gradient::<T, T::Factor>(tiling, rows, dy, dy_tiles);
                        let gradients = Columns {
                            words: dy_tiles,
                            channels: outputs,
                            range: 0..outputs,
                        };
                        multiply_gradients::<T::Factor>(
                            gradients,
                            x_tiles,
                            inputs,
                            sums,
                            index > 0,
                        );
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
    // Words a channel that each block takes, one behind the other.
    let lengths = blocks
        .iter()
        .map(|rows| points_len::<T::Factor>(rows.len() * tiling.columns, 1, Words::OfTiles));
    let all: usize = lengths.clone().sum();
    with_scratch(all * (inputs + outputs), |scratch| {
        let (x_tiles, dy_tiles) = scratch.split_at_mut(all * inputs);
        let x_parts = split_parts(lengths.clone().map(|length| length * inputs), x_tiles);
        let dy_parts = split_parts(lengths.clone().map(|length| length * outputs), dy_tiles);
        let parts = x_parts.into_par_iter().zip(dy_parts);
        blocks
            .par_iter()
            .zip(parts)
            .for_each(|(rows, (x_tiles, dy_tiles))| {
                let kind = Words::OfTiles;
                transform_input::<T, T::Factor>(tiling, rows.clone(), x, kind, x_tiles);
                transform_output_gradient::<T, T::Factor>(tiling, rows.clone(), dy, dy_tiles);
            });
        let (x_tiles, dy_tiles) = (&*x_tiles, &*dy_tiles);
        let lengths: Vec<usize> = lengths.collect();
        dw.par_chunks_mut(RANGE * 9 * inputs)
            .enumerate()
            .for_each(|(range, dw)| {
                let width = dw.len() / 9 / inputs;
                with_scratch(transformed_len::<f32>(width, inputs), |sums| {
                    let mut start = 0;
                    for length in &lengths {
                        let gradients = Columns {
                            words: &dy_tiles[start * outputs..][..length * outputs],
                            channels: outputs,
                            range: range * RANGE..range * RANGE + width,
                        };
                        let x_tiles = &x_tiles[start * inputs..][..length * inputs];
                        multiply_gradients::<T::Factor>(
                            gradients,
                            x_tiles,
                            inputs,
                            sums,
                            start > 0,
                        );
                        start += length;
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

/// Cuts an array into parts of the given lengths.
fn split_parts(lengths: impl Iterator<Item = usize>, array: &mut [f32]) -> Vec<&mut [f32]> {
    let mut rest = array;
    lengths
        .map(|length| {
            let (part, others) = std::mem::take(&mut rest).split_at_mut(length);
            rest = others;
            part
        })
        .collect()
}

/// Some channels of words `[36, tiles / depth, channels]`.
struct Columns<'a> {
    words: &'a [f32],
    channels: usize,
    range: Range<usize>,
}

/// For every point, `sums[range, inputs] (+)= gradients[tiles, range]' · x_tiles[tiles, inputs]`.
fn multiply_gradients<F: Factor>(
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
        .zip(gradients.words.chunks_exact(tiles * gradients.channels))
        .zip(sums.chunks_exact_mut(width * inputs))
    {
        Product {
            rows: width,
            inner: tiles,
            columns: inputs,
            left: Left {
                words: &dy_tiles[gradients.range.start..],
                row_stride: 1,
                column_stride: gradients.channels,
            },
            right: Right::row_major(x_tiles, inputs),
            target: sums,
            target_stride: inputs,
            accumulate,
            factor: PhantomData::<F>,
        }
        .run();
    }
}
