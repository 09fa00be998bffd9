//! Matrix products on blocks that are in cache already, of f32 or of pairs of bf16.
//!
//! A tile of the target stays in registers while one row of `right` and one word of each row of `left` are read a step.
//! The order of a sum is that of the inner dimension, whatever the tile: results do not depend on how rows are split.

pub(crate) mod panels;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tiles;

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::element::{Element, store_sums};
use super::factor::Factor;
#[cfg(target_arch = "x86_64")]
use super::lanes::has_tiles;
use super::lanes::prefetch;

/// Columns of a panel: two of the widest vectors.
pub(crate) const PANEL: usize = 32;
/// A matrix of this size stays in the second-level cache beside what else a thread works on.
const RESIDENT_BYTES: usize = 1 << 18;
/// Columns that are read at once at most.
const LANES: usize = 16;

/// Words of the inner dimension between two steps of the addresses, for vectors of so many f32: narrow ones leave little
/// time for addresses; of several words at a time for wide ones the compiler keeps most on the stack.
const fn unrolled(lanes: usize) -> usize {
    if lanes < LANES { 4 } else { 1 }
}

/// Words of a cache line.
pub(crate) const LINE: usize = 16;

/// A matrix of words whose rows or columns are contiguous: one of its strides is 1.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) words: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl Left<'_> {
    fn strides(&self) -> [usize; 2] {
        [self.row_stride, self.column_stride]
    }
}

/// A matrix of words in panels of [`PANEL`] columns. Its columns are padded to whole vectors of the widest unit.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    pub(crate) words: &'a [f32],
    pub(crate) row_stride: usize,
    /// Words from one panel to the next.
    pub(crate) panel_stride: usize,
}

impl<'a> Right<'a> {
    /// Panels one behind the other, `inner` rows each.
    pub(crate) fn panels(words: &'a [f32], inner: usize) -> Self {
        Self {
            words,
            row_stride: PANEL,
            panel_stride: inner * PANEL,
        }
    }

    fn place(&self, column: usize) -> usize {
        column / PANEL * self.panel_stride + column % PANEL
    }
}

/// `target[rows, columns] (+)= left[rows, inner] · right[inner, columns]`, rows of the target `target_stride` apart, the
/// inner dimension counted in words of `F`.
pub(crate) struct Product<'a, F, T> {
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    pub(crate) columns: usize,
    pub(crate) left: Left<'a>,
    pub(crate) right: Right<'a>,
    pub(crate) target: &'a mut [T],
    pub(crate) target_stride: usize,
    pub(crate) accumulate: bool,
    pub(crate) factor: PhantomData<F>,
}

impl<F: Factor, T: Element> Product<'_, F, T> {
    /// Computes it on the calling thread.
    pub(crate) fn run(self) {
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        assert!(self.inner > 0, "a product sums over something");
        let last = [self.rows - 1, self.inner - 1];
        assert!(
            last[0] * self.left.row_stride + last[1] * self.left.column_stride
                < self.left.words.len()
        );
        self.check_right();
        assert!(last[0] * self.target_stride + self.columns <= self.target.len());
        assert!(
            self.left.strides().contains(&1),
            "rows or columns of a left side are contiguous"
        );
        #[cfg(target_arch = "x86_64")]
        if const { F::DEPTH == 1 } && has_tiles() && tiles::thirds::suits(self.inner, self.columns)
        {
            return tiles::thirds::run(self);
        }
        F::dispatch(self);
    }

    fn check_right(&self) {
        let vector = (self.columns - 1) / LANES * LANES;
        let last = (self.inner - 1) * self.right.row_stride + self.right.place(vector);
        assert!(last + LANES <= self.right.words.len());
    }
}

impl<F: Factor, T: Element> WithSimd for Product<'_, F, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        #[cfg(target_arch = "x86_64")]
        if F::DEPTH > 1 && has_tiles() {
            return tiles::run(self);
        }
        // Two vectors of columns, as many rows as 32 or 16 registers hold beside a row of `right` and a word of `left`.
        match (S::F32_LANES, self.columns <= S::F32_LANES) {
            (16, false) => self.tiles::<S, 12, 2>(simd),
            (16, true) => self.tiles::<S, 16, 1>(simd),
            (8, _) => self.tiles::<S, 6, 2>(simd),
            _ => self.tiles::<S, 4, 2>(simd),
        }
    }
}

impl<F: Factor, T: Element> Product<'_, F, T> {
    /// Rows of a target that is written to memory are completed one after the other while `right` stays in cache: pieces
    /// of far rows would each miss it anew. Else a panel of `right` is read once for all rows.
    #[inline(always)]
    fn tiles<S: Simd, const ROWS: usize, const VECTORS: usize>(&mut self, simd: S) {
        let step = VECTORS * S::F32_LANES;
        let right_bytes = 4 * self.inner * self.columns;
        if right_bytes <= RESIDENT_BYTES && size_of_val(&*self.target) > RESIDENT_BYTES {
            let mut row = 0;
            while row < self.rows {
                let mut height = 0;
                for column in (0..self.columns).step_by(step) {
                    height = self.tile_of_rest::<S, ROWS, VECTORS>(simd, row, column);
                }
                row += height;
            }
        } else {
            for column in (0..self.columns).step_by(step) {
                let mut row = 0;
                while row < self.rows {
                    row += self.tile_of_rest::<S, ROWS, VECTORS>(simd, row, column);
                }
            }
        }
    }

    /// The largest tile that fits below `row`; returns its height.
    #[inline(always)]
    fn tile_of_rest<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
    ) -> usize {
        let rest = self.rows - row;
        let is_single = self.columns - column <= S::F32_LANES;
        let height = if rest >= ROWS {
            ROWS
        } else if rest >= 4 {
            4
        } else {
            1
        };
        match (height, is_single) {
            (4, true) => self.tile::<S, 4, 1>(simd, row, column),
            (4, false) => self.tile::<S, 4, VECTORS>(simd, row, column),
            (1, true) => self.tile::<S, 1, 1>(simd, row, column),
            (1, false) => self.tile::<S, 1, VECTORS>(simd, row, column),
            (_, true) => self.tile::<S, ROWS, 1>(simd, row, column),
            (_, false) => self.tile::<S, ROWS, VECTORS>(simd, row, column),
        }
        height
    }

    /// Adds the products of some words of the inner dimension. One of the strides of `left` is a constant 1, for addresses
    /// that need no arithmetic.
    ///
    /// # Safety
    /// `left` and `right` must point to these words of `ROWS` rows, and to rows of `VECTORS` vectors.
    #[inline(always)]
    unsafe fn add<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        left: *const f32,
        right: *const f32,
        words: Range<usize>,
        sums: &mut [[S::f32s; VECTORS]; ROWS],
    ) {
        let strides = self.left.strides();
        // SAFETY: as the caller promises.
        unsafe {
            if strides[1] == 1 {
                self.add_strided(simd, left, [strides[0], 1], right, words, sums);
            } else {
                self.add_strided(simd, left, [1, strides[1]], right, words, sums);
            }
        }
    }

    /// # Safety
    /// That of [`add`](Self::add).
    #[inline(always)]
    unsafe fn add_strided<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        left: *const f32,
        [row_stride, column_stride]: [usize; 2],
        right: *const f32,
        words: Range<usize>,
        sums: &mut [[S::f32s; VECTORS]; ROWS],
    ) {
        let mut rows = [left.wrapping_add(words.start * column_stride); ROWS];
        for (row, place) in rows.iter_mut().enumerate() {
            *place = place.wrapping_add(row * row_stride);
        }
        let mut right = right.wrapping_add(words.start * self.right.row_stride);
        let (count, unrolled) = (words.len(), const { unrolled(S::F32_LANES) });
        // SAFETY: as the caller promises.
        unsafe {
            for _ in 0..count / unrolled {
                for index in 0..unrolled {
                    let line = right.wrapping_add(index * self.right.row_stride);
                    add_word::<F, S, ROWS, VECTORS>(simd, &rows, index * column_stride, line, sums);
                }
                for row in &mut rows {
                    *row = row.wrapping_add(unrolled * column_stride);
                }
                right = right.wrapping_add(unrolled * self.right.row_stride);
            }
            for index in 0..count % unrolled {
                let line = right.wrapping_add(index * self.right.row_stride);
                add_word::<F, S, ROWS, VECTORS>(simd, &rows, index * column_stride, line, sums);
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
    ) {
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        // SAFETY: `run` checked the extents of left and right (whose columns are padded to whole vectors), and row + ROWS ≤
        // rows by the loops above.
        unsafe {
            let left = self.left.words.as_ptr().add(row * self.left.row_stride);
            let right = self.right.words.as_ptr().add(self.right.place(column));
            if column == 0 && self.left.column_stride == 1 {
                // Nothing has read the rows below yet: a line of each is asked for at a time.
                for first in (0..self.inner).step_by(LINE) {
                    for row in ROWS..2 * ROWS {
                        prefetch(left.wrapping_add(row * self.left.row_stride + first));
                    }
                    let words = first..self.inner.min(first + LINE);
                    self.add::<S, ROWS, VECTORS>(simd, left, right, words, &mut sums);
                }
            } else {
                self.add::<S, ROWS, VECTORS>(simd, left, right, 0..self.inner, &mut sums);
            }
        }
        let is_whole = column + VECTORS * S::F32_LANES <= self.columns;
        for (index, sums) in sums.into_iter().enumerate() {
            let start = (row + index) * self.target_stride + column;
            if is_whole {
                let target = &mut self.target[start..][..VECTORS * S::F32_LANES];
                for (vector, sum) in sums.into_iter().enumerate() {
                    store(
                        simd,
                        sum,
                        &mut target[vector * S::F32_LANES..],
                        self.accumulate,
                    );
                }
            } else {
                let mut values = [0.0; PANEL];
                for (values, sum) in values.chunks_exact_mut(S::F32_LANES).zip(sums) {
                    S::as_mut_simd_f32s(values).0[0] = sum;
                }
                let width = self.columns - column;
                let target = &mut self.target[start..][..width];
                store_sums(&values[..width], target, self.accumulate);
            }
        }
    }
}

#[inline(always)]
fn store<S: Simd, T: Element>(simd: S, sum: S::f32s, target: &mut [T], accumulate: bool) {
    let value = if accumulate {
        simd.add_f32s(T::load_vector(simd, target), sum)
    } else {
        sum
    };
    T::store_vector(simd, value, target);
}

/// Adds the products of one word of the inner dimension.
///
/// # Safety
/// A word must lie `offset` after each of `rows`, and `VECTORS` vectors at `right`.
#[inline(always)]
unsafe fn add_word<F: Factor, S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    rows: &[*const f32; ROWS],
    offset: usize,
    right: *const f32,
    sums: &mut [[S::f32s; VECTORS]; ROWS],
) {
    let mut vectors = [simd.splat_f32s(0.0); VECTORS];
    // SAFETY: as the caller promises. Vectors are read unaligned.
    unsafe {
        for (index, vector) in vectors.iter_mut().enumerate() {
            let source = right.add(index * S::F32_LANES);
            *vector = source.cast::<S::f32s>().read_unaligned();
        }
        for (row, sums) in rows.iter().zip(sums) {
            let factor = simd.splat_f32s(*row.add(offset));
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = F::multiply_add(simd, factor, vector, *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element of a product of f32 as computed, as summed in double precision, and the sum of its absolute products.
    pub(super) struct Entry {
        pub(super) found: f32,
        pub(super) expected: f64,
        pub(super) size: f64,
    }

    /// All elements of a product of `[rows, inner]` with `[inner, columns]` whose left side has contiguous columns, or rows,
    /// added to 0.5 where it accumulates.
    pub(super) fn entries(
        [rows, inner, columns]: [usize; 3],
        value: impl Fn(usize) -> f32,
        is_tall: bool,
        accumulate: bool,
    ) -> Vec<Entry> {
        let left: Vec<f32> = (0..rows * inner).map(&value).collect();
        let width = columns.next_multiple_of(LANES);
        let right: Vec<f32> = (0..inner * width).map(|i| value(i + 5)).collect();
        let (row_stride, column_stride) = if is_tall { (1, rows) } else { (inner, 1) };
        let start = if accumulate { 0.5 } else { f32::NAN };
        let mut target = vec![start; rows * columns];
        Product {
            rows,
            inner,
            columns,
            left: Left {
                words: &left,
                row_stride,
                column_stride,
            },
            right: Right {
                words: &right,
                row_stride: width,
                panel_stride: PANEL,
            },
            target: &mut target,
            target_stride: columns,
            accumulate,
            factor: PhantomData::<f32>,
        }
        .run();
        let entry = |(index, found): (usize, &f32)| {
            let (row, column) = (index / columns, index % columns);
            let products = (0..inner).map(|k| {
                f64::from(left[row * row_stride + k * column_stride])
                    * f64::from(right[k * width + column])
            });
            let start = if accumulate { 0.5 } else { 0.0 };
            Entry {
                found: *found,
                expected: products.clone().sum::<f64>() + start,
                size: products.map(f64::abs).sum::<f64>() + start,
            }
        };
        target.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn agrees_with_sums_in_double_precision_for_all_remainders() {
        let value = |i: usize| (i * 7919 % 1000) as f32 / 500.0 - 1.0;
        for size in [
            [1, 1, 16],
            [5, 3, 32],
            [12, 7, 48],
            [31, 20, 80],
            [13, 4, 37],
        ] {
            for is_tall in [false, true] {
                for accumulate in [false, true] {
                    let entries = entries(size, value, is_tall, accumulate);
                    for (index, entry) in entries.iter().enumerate() {
                        let (found, expected) = (entry.found, entry.expected);
                        assert!(
                            (f64::from(found) - expected).abs() < 1e-5,
                            "{size:?} at {index}: {found} for {expected}"
                        );
                    }
                }
            }
        }
    }
}
