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

mod input_tiles;
mod layout;
mod output_tiles;
mod products;
#[cfg(test)]
mod tests;
mod tiling;
mod transforms;
mod weights;

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use self::input_tiles::{transform_input, transform_output_gradient};
use self::layout::Layout;
use self::output_tiles::OutputTiles;
use self::products::{GradientProducts, TileProducts};
use self::tiling::Tiling;
use self::transforms::POINTS;
use self::weights::{Direction, GradientOfWeights, WeightLayout, Weights};
use super::super::Geometry;
use crate::ops::element::Element;
use crate::ops::factor::Factor;
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

/// Whether the forward pass is clearly quicker than direct sums of pairs of bf16. On fewer tiles both take the same time within
/// 5 % (measured), and gradients behind direct sums agree a little better with those of f32: their cosine was 0.932
/// instead of 0.926 in the mean of eight seeds of a narrow ResNet-18.
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
    let layout = Layout::of_channels::<F>(from);
    with_scratch(WeightLayout::new::<F>(to).len(from), |transformed| {
        weights.transform::<F>(0..to, transformed);
        let weights = &*transformed;
        blocks.into_par_iter().zip(parts).for_each(|(rows, y)| {
            let tiles = rows.len() * tiling.columns;
            let lengths = [layout, Layout::of_tiles::<f32>(to)].map(|layout| layout.len(tiles));
            with_scratch(lengths.iter().sum(), |scratch| {
                let (inputs, products) = scratch.split_at_mut(lengths[0]);
                transform_input::<T, F>(tiling, rows.clone(), x, layout, inputs);
                TileProducts {
                    tiles,
                    from,
                    to,
                    inputs,
                    weights,
                    products,
                    factor: PhantomData::<F>,
                }
                .run();
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
    let layout = Layout::of_channels::<F>(from);
    let ranges: Vec<Range<usize>> = (0..to)
        .step_by(RANGE)
        .map(|first| first..to.min(first + RANGE))
        .collect();
    let range_layout = |range: &Range<usize>| Layout::of_tiles::<f32>(range.len());
    let range_lengths = ranges
        .iter()
        .map(|range| range_layout(range).len(tiling.tiles()));
    let input_len = layout.len(tiling.tiles());
    with_scratch(
        input_len + range_lengths.clone().sum::<usize>(),
        |scratch| {
            let (inputs, products) = scratch.split_at_mut(input_len);
            let lengths = blocks
                .iter()
                .map(|rows| layout.len(rows.len() * tiling.columns));
            let parts = split_parts(lengths, inputs);
            blocks.par_iter().zip(parts).for_each(|(rows, inputs)| {
                transform_input::<T, F>(tiling, rows.clone(), x, layout, inputs);
            });
            let inputs = &*inputs;
            let mut products = split_parts(range_lengths, products);
            products
                .par_iter_mut()
                .zip(&ranges)
                .for_each(|(products, range)| {
                    with_scratch(
                        WeightLayout::new::<F>(range.len()).len(from),
                        |transformed| {
                            weights.transform::<F>(range.clone(), transformed);
                            for rows in &blocks {
                                let tiles = tiling.tiles_of(rows);
                                let places =
                                    |layout: Layout| layout.len(tiles.start)..layout.len(tiles.end);
                                TileProducts {
                                    tiles: tiles.len(),
                                    from,
                                    to: range.len(),
                                    inputs: &inputs[places(layout)],
                                    weights: transformed,
                                    products: &mut products[places(range_layout(range))],
                                    factor: PhantomData::<F>,
                                }
                                .run();
                            }
                        },
                    );
                });
            let parts = tiling.split_output(&blocks, y);
            blocks.par_iter().zip(parts).for_each(|(rows, y)| {
                let tiles = tiling.tiles_of(rows);
                for (range, products) in ranges.iter().zip(&products) {
                    let layout = range_layout(range);
                    OutputTiles {
                        tiling,
                        rows: rows.clone(),
                        products: &products[layout.len(tiles.start)..layout.len(tiles.end)],
                        first_channel: range.start,
                        width: range.len(),
                        y,
                        accumulate,
                    }
                    .run();
                }
            });
        },
    );
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
        weights_by_blocks::<T, T::Factor>(&tiling, x, dy, dw, accumulate);
    } else {
        weights_by_channels::<T, T::Factor>(&tiling, x, dy, dw, accumulate);
    }
}

/// Each thread sums over its own share of the tile rows.
fn weights_by_blocks<T: Element, F: Factor>(
    tiling: &Tiling,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
    accumulate: bool,
) {
    let geometry = tiling.geometry();
    let (inputs, outputs) = (geometry.in_channels, geometry.out_channels);
    let layouts = [inputs, outputs].map(Layout::of_tiles::<F>);
    let length = POINTS * outputs * inputs;
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
                    let lengths = layouts.map(|layout| layout.len(tiles));
                    with_scratch(lengths.iter().sum(), |scratch| {
                        let (x_tiles, dy_tiles) = scratch.split_at_mut(lengths[0]);
                        let [x_layout, dy_layout] = layouts;
                        transform_input::<T, F>(tiling, rows.clone(), x, x_layout, x_tiles);
                        transform_output_gradient::<T, F>(tiling, rows, dy, dy_layout, dy_tiles);
                        GradientProducts {
                            tiles,
                            outputs,
                            range: 0..outputs,
                            inputs,
                            gradients: dy_tiles,
                            x: x_tiles,
                            sums: &mut *sums,
                            accumulate: index > 0,
                            factor: PhantomData::<F>,
                        }
                        .run();
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
fn weights_by_channels<T: Element, F: Factor>(
    tiling: &Tiling,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
    accumulate: bool,
) {
    let geometry = tiling.geometry();
    let (inputs, outputs) = (geometry.in_channels, geometry.out_channels);
    let blocks = tiling.blocks(0..tiling.rows(), TILES);
    let layouts = [inputs, outputs].map(Layout::of_tiles::<F>);
    // Every block begins with words of its own: its last tile may share none.
    let lengths = layouts.map(|layout| {
        let lengths = blocks
            .iter()
            .map(|rows| layout.len(tiling.tiles_of(rows).len()));
        lengths.collect::<Vec<_>>()
    });
    let [x_len, dy_len] = [0, 1].map(|side| lengths[side].iter().sum::<usize>());
    with_scratch(x_len + dy_len, |scratch| {
        let (x_tiles, dy_tiles) = scratch.split_at_mut(x_len);
        let mut x_parts = split_parts(lengths[0].iter().copied(), x_tiles);
        let mut dy_parts = split_parts(lengths[1].iter().copied(), dy_tiles);
        blocks
            .par_iter()
            .zip(x_parts.par_iter_mut().zip(&mut dy_parts))
            .for_each(|(rows, (x_tiles, dy_tiles))| {
                transform_input::<T, F>(tiling, rows.clone(), x, layouts[0], x_tiles);
                transform_output_gradient::<T, F>(tiling, rows.clone(), dy, layouts[1], dy_tiles);
            });
        dw.par_chunks_mut(RANGE * 9 * inputs)
            .enumerate()
            .for_each(|(range, dw)| {
                let width = dw.len() / 9 / inputs;
                with_scratch(POINTS * width * inputs, |sums| {
                    for (index, rows) in blocks.iter().enumerate() {
                        GradientProducts {
                            tiles: tiling.tiles_of(rows).len(),
                            outputs,
                            range: range * RANGE..range * RANGE + width,
                            inputs,
                            gradients: &*dy_parts[index],
                            x: &*x_parts[index],
                            sums: &mut *sums,
                            accumulate: index > 0,
                            factor: PhantomData::<F>,
                        }
                        .run();
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
