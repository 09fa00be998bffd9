//! Products of f32 on tiles of bf16, at the precision of f32.
//!
//! The 24 significant bits of a factor are three bf16 of eight bits each, cut off and not rounded: x = x₁ + x₂ + x₃, exactly
//! in f32's normal range. Of the nine products of two such sums the six largest are added, the smallest first. What is left
//! out is below 2⁻²¹ of the product and 2⁻²⁵ on average, where f32 rounds to 2⁻²⁴. An infinite factor gives NaN.

use std::ops::Range;

use candle_core::DType;
use pulp::{Simd, WithSimd};

use super::super::{PANEL, Product};
use super::cut::{PARTS, STEP, cut_columns, cut_panel, cut_rows};
use super::registers::{TILE, Tiles, WORD, add};
use super::{InOrder, SIDE, Sums};
use crate::ops::element::Element;
use crate::ops::factor::Factor;
use crate::ops::lanes::{dispatch_bf16, prefetch};
use crate::ops::scratch::with_scratch;

/// Parts of a left and a right factor that are multiplied.
const TERMS: [[usize; 2]; 6] = [[2, 0], [0, 2], [1, 1], [1, 0], [0, 1], [0, 0]];
/// Words of one part of a square of the left side, or of a panel of the right one, a step deep.
const PIECE: usize = SIDE * TILE;
/// Factors of the inner dimension that are cut at once: a panel of them stays in the second-level cache.
const BLOCK: usize = 512;
/// Words of a right side that stay there while all rows pass by.
const RESIDENT_WORDS: usize = 1 << 17;

/// Cutting the left side costs as much as half of its products with fewer columns; and storing, as much as all sums over
/// fewer factors (measured).
const LEAST_COLUMNS: usize = 128;
const LEAST_INNER: usize = 64;

/// Whether a product of so many columns that sums over `inner` factors is quicker so than in AVX-512. Rows do not count:
/// how they are split must not change results.
pub(in super::super) fn suits(inner: usize, columns: usize) -> bool {
    inner >= LEAST_INNER && columns >= LEAST_COLUMNS
}

/// Computes the product on the calling thread. Its extents have been checked, and tiles are available.
pub(in super::super) fn run<F: Factor, T: Element>(mut product: Product<'_, F, T>) {
    let [rows, panels] = [product.rows, product.columns].map(|count| count.div_ceil(SIDE));
    // A target of bf16 is rounded once.
    let block = if T::DTYPE == DType::F32 {
        BLOCK
    } else {
        product.inner
    };
    for first in (0..product.inner).step_by(block) {
        let inner = first..product.inner.min(first + block);
        let depth = inner.len().div_ceil(STEP) * PARTS * PIECE;
        let is_resident = panels * depth <= RESIDENT_WORDS;
        let pieces = 1 + if is_resident { panels } else { rows };
        with_scratch(pieces * depth, |parts| {
            let (one, many) = parts.split_at_mut(depth);
            dispatch_bf16(Block {
                product: &mut product,
                inner,
                is_resident,
                one,
                many,
            });
        });
        product.accumulate = true;
    }
}

/// A product over some factors of the inner dimension.
struct Block<'a, 'b, F, T> {
    product: &'a mut Product<'b, F, T>,
    inner: Range<usize>,
    /// Whether all panels of the right side are cut first, or all squares of the left.
    is_resident: bool,
    /// Parts of one square or panel of one side.
    one: &'a mut [f32],
    /// Parts of the other side.
    many: &'a mut [f32],
}

impl<F: Factor, T: Element> WithSimd for Block<'_, '_, F, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self {
            product,
            inner,
            is_resident,
            one,
            many,
        } = self;
        let depth = one.len();
        let (rows, columns) = (product.rows, product.columns);
        let mut tiles = Tiles::default();
        let mut sums = Sums::default();
        if is_resident {
            for (right, column) in many.chunks_exact_mut(depth).zip((0..columns).step_by(SIDE)) {
                cut_right(product, &inner, column, right);
            }
            for row in (0..rows).step_by(SIDE) {
                cut_left(product, &inner, row, one);
                for (right, column) in many.chunks_exact(depth).zip((0..columns).step_by(SIDE)) {
                    square(product, &mut tiles, &mut sums, [row, column], [one, right]);
                }
            }
        } else {
            for (left, row) in many.chunks_exact_mut(depth).zip((0..rows).step_by(SIDE)) {
                cut_left(product, &inner, row, left);
            }
            for column in (0..columns).step_by(SIDE) {
                cut_right(product, &inner, column, one);
                for (left, row) in many.chunks_exact(depth).zip((0..rows).step_by(SIDE)) {
                    square(product, &mut tiles, &mut sums, [row, column], [left, one]);
                }
            }
        }
    }
}

/// The parts of the left side's rows from `row` on that one square takes.
#[inline(always)]
fn cut_left<F, T>(
    product: &Product<'_, F, T>,
    inner: &Range<usize>,
    row: usize,
    parts: &mut [f32],
) {
    let left = &product.left;
    let height = SIDE.min(product.rows - row);
    let words = &left.words[row * left.row_stride + inner.start * left.column_stride..];
    if left.column_stride == 1 {
        cut_rows(words, left.row_stride, [height, inner.len()], parts);
    } else {
        cut_columns(words, left.column_stride, [height, inner.len()], parts);
    }
}

/// The parts of a panel of the right side.
#[inline(always)]
fn cut_right<F, T>(
    product: &Product<'_, F, T>,
    inner: &Range<usize>,
    column: usize,
    parts: &mut [f32],
) {
    let right = &product.right;
    let width = SIDE.min(product.columns - column).next_multiple_of(TILE);
    let words = &right.words[inner.start * right.row_stride + right.place(column)..];
    cut_panel(words, right.row_stride, [inner.len(), width], parts);
}

/// Adds to one square of the target.
#[inline(always)]
fn square<F: Factor, T: Element>(
    product: &mut Product<'_, F, T>,
    tiles: &mut Tiles,
    sums: &mut Sums,
    place: [usize; 2],
    sides: [&[f32]; 2],
) {
    let height = SIDE.min(product.rows - place[0]);
    let width = SIDE.min(product.columns - place[1]);
    tiles.shape(height);
    match (height > TILE, width > TILE) {
        (true, true) => sum::<F, T, 2, 2>(product, sums, place, sides),
        (true, false) => sum::<F, T, 2, 1>(product, sums, place, sides),
        (false, true) => sum::<F, T, 1, 2>(product, sums, place, sides),
        (false, false) => sum::<F, T, 1, 1>(product, sums, place, sides),
    }
}

#[inline(always)]
fn sum<F: Factor, T: Element, const ROWS: usize, const COLUMNS: usize>(
    product: &mut Product<'_, F, T>,
    sums: &mut Sums,
    place: [usize; 2],
    [left, right]: [&[f32]; 2],
) {
    assert_eq!(left.len(), right.len());
    let strides = [TILE, PANEL].map(|words| words * WORD);
    // Stores wait for lines that are not in cache, and products for stores.
    for row in place[0]..product.rows.min(place[0] + SIDE) {
        let line = product
            .target
            .as_ptr()
            .wrapping_add(row * product.target_stride + place[1]);
        prefetch(line);
        prefetch(line.wrapping_add(TILE));
    }
    // SAFETY: the sides are whole pieces of all parts, rows of tiles one behind the other; the caller has given the
    // registers the shapes of this square.
    unsafe {
        product.sum_square::<ROWS, COLUMNS, _>(sums, place, InOrder, || {
            let sides = left
                .chunks_exact(PARTS * PIECE)
                .zip(right.chunks_exact(PARTS * PIECE));
            for (left, right) in sides {
                for [first, second] in TERMS {
                    let left = left.as_ptr().add(first * PIECE);
                    add::<ROWS, COLUMNS>(left, right.as_ptr().add(second * PIECE), strides);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::entries;
    use super::suits;
    use crate::ops::lanes::{Units, bf16_units, with_units};

    /// Rows, inner dimension, columns: whole and cut-off squares, steps and blocks.
    const SIZES: [[usize; 3]; 4] = [
        [32, 64, 128],
        [37, 100, 130],
        [17, 513, 144],
        [5, 1100, 160],
    ];

    fn value(index: usize) -> f32 {
        (index as u32).wrapping_mul(2_654_435_761) as f32 / 2f32.powi(31) - 1.0
    }

    #[test]
    fn products_are_as_exact_as_those_of_f32() {
        let tiles = |units: &Units| matches!(units, Units::Tiles(_));
        for units in bf16_units().into_iter().filter(tiles) {
            for size in SIZES {
                assert!(suits(size[1], size[2]));
                for is_tall in [false, true] {
                    let entries = with_units(units, || entries(size, value, is_tall, true));
                    for entry in entries {
                        let error = (f64::from(entry.found) - entry.expected).abs() / entry.size;
                        // Multiply-adds in f32 have 4e-8 to 1.8e-7 here.
                        assert!(error < 2f64.powi(-23), "{size:?}: {error}");
                    }
                }
            }
        }
    }
}
