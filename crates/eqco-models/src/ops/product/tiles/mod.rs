//! Products of pairs of bf16 on the tile registers of AMX: eight registers of 16 rows of 16 words, of which one instruction
//! multiplies two and adds the product to a third.
//!
//! Four registers sum a square of [`SIDE`] rows and columns of the target, so that every register that is loaded is
//! multiplied twice. Sums are those of the instruction: f32, two products of a word after the other. [`thirds`] has products
//! of f32.

mod by_rows;
mod cut;
mod registers;
pub(super) mod thirds;

use std::ops::Range;

use candle_core::DType;
use pulp::{Simd, WithSimd};

use super::{Left, PANEL, Product};
use crate::ops::element::{Element, store_sums};
use crate::ops::factor::Factor;
use crate::ops::lanes::dispatch_bf16;
use crate::ops::scratch::with_scratch;
use registers::{Aligned, Place, Tiles, WORD, add, clear};

pub(crate) use by_rows::transpose;
pub(crate) use registers::{TILE, are_available};

/// Rows and columns of the target that are summed at once: a panel.
const SIDE: usize = 2 * TILE;
/// A side of a product that is no larger stays in the second-level cache while the other one passes by.
const RESIDENT_BYTES: usize = 1 << 19;

/// Computes the product on the calling thread. Its extents have been checked, and tiles [are available](are_available).
#[inline(always)]
pub(super) fn run<F: Factor, T: Element>(product: Product<'_, F, T>) {
    let inner = product.inner;
    if product.left.column_stride == 1 {
        return Squares::of_rows(product).run();
    }
    // A row of a tile is a piece of a row of the left side.
    let row_stride = inner.next_multiple_of(TILE);
    let rows = product.rows.next_multiple_of(TILE);
    with_scratch(rows * row_stride, |words| {
        transpose(
            &product.left,
            product.rows,
            product.inner,
            row_stride,
            words,
        );
        let left = Left {
            words,
            row_stride,
            column_stride: 1,
        };
        Squares::of_rows(Product { left, ..product }).run();
    });
}

/// A product whose left rows are several runs of words, equally far from each row's first, and overlap: what a convolution
/// multiplies, without copies. Only some rows have a place in the target.
pub(crate) struct RunProduct<'a, F, T, P> {
    /// Of one row after the other; its inner dimension is that of all runs.
    pub(crate) product: Product<'a, F, T>,
    /// Words from a row's first to those of each run, which are as many, and whole tiles.
    pub(crate) runs: &'a [usize],
    /// The rows of the target that rows belong to.
    pub(crate) places: P,
}

impl<F: Factor, T: Element, P: Places> RunProduct<'_, F, T, P> {
    /// Computes it on the calling thread.
    ///
    /// # Panics
    /// Where tiles are not available, or a side is too short.
    pub(crate) fn run(self) {
        let product = &self.product;
        assert!(
            F::DEPTH > 1 && are_available(),
            "a product on tiles needs tiles of bf16"
        );
        if product.rows == 0 || product.columns == 0 {
            return;
        }
        let words = product.inner / self.runs.len();
        assert!(
            words > 0 && words.is_multiple_of(TILE) && words * self.runs.len() == product.inner
        );
        let last = self.runs.iter().max().map_or(0, |run| run + words);
        assert!((product.rows - 1) * product.left.row_stride + last <= product.left.words.len());
        product.check_right();
        dispatch_bf16(self);
    }
}

impl<F: Factor, T: Element, P: Places> WithSimd for RunProduct<'_, F, T, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let steps = self.product.inner / self.runs.len() / TILE;
        Squares {
            product: self.product,
            runs: self.runs,
            steps,
            rest: 0,
            places: self.places,
        }
        .run();
    }
}

/// Where the rows of a product belong in its target.
pub(crate) trait Places: Copy {
    /// Whether every row has the place of its own number.
    const ARE_ROWS: bool;
    /// Those of the rows that have a place, as runs of rows with the place of the first one; the others follow it.
    fn runs(self, rows: Range<usize>) -> impl Iterator<Item = (Range<usize>, usize)>;
}

/// Every row in the place of its own number.
#[derive(Clone, Copy)]
struct InOrder;

impl Places for InOrder {
    const ARE_ROWS: bool = true;

    #[inline(always)]
    fn runs(self, rows: Range<usize>) -> impl Iterator<Item = (Range<usize>, usize)> {
        let first = rows.start;
        std::iter::once((rows, first))
    }
}

/// A square on its way to the target.
type Sums = Aligned<[[f32; SIDE]; SIDE]>;

impl<F, T: Element> Product<'_, F, T> {
    /// Has the registers sum one square of the target, whose rows and columns begin at `place`: they hold zeros or what is
    /// there, `steps` adds to them, and they are stored.
    ///
    /// # Safety
    /// Registers must have the shapes of the square.
    #[inline(always)]
    unsafe fn sum_square<const ROWS: usize, const COLUMNS: usize, P: Places>(
        &mut self,
        sums: &mut Sums,
        [row, column]: [usize; 2],
        places: P,
        steps: impl FnOnce(),
    ) {
        let height = SIDE.min(self.rows - row);
        let width = SIDE.min(self.columns - column);
        let is_direct = P::ARE_ROWS && T::DTYPE == DType::F32 && width == COLUMNS * TILE;
        let direct = Place {
            start: if is_direct {
                let target = &mut self.target[row * self.target_stride + column..];
                target.as_mut_ptr().cast::<f32>()
            } else {
                std::ptr::null_mut()
            },
            stride: self.target_stride * WORD,
        };
        let buffer = Place {
            start: sums.0.as_mut_ptr().cast(),
            stride: SIDE * WORD,
        };
        // SAFETY: the product's extents have been checked, and the caller promises the shapes.
        unsafe {
            if is_direct && self.accumulate {
                direct.load::<ROWS, COLUMNS>();
            } else {
                clear::<ROWS, COLUMNS>();
            }
            steps();
            if is_direct {
                return direct.store::<ROWS, COLUMNS>();
            }
            buffer.store::<ROWS, COLUMNS>();
        }
        for (rows, place) in places.runs(row..row + height) {
            let sums = &sums.0[rows.start - row..rows.end - row];
            // A width that the compiler knows makes a row one instruction.
            if width == COLUMNS * TILE {
                self.store_rows(sums, place, column..column + COLUMNS * TILE);
            } else {
                self.store_rows(sums, place, column..column + width);
            }
        }
    }

    /// Stores rows of sums from `place` on, or adds them to what is there.
    #[inline(always)]
    fn store_rows(&mut self, sums: &[[f32; SIDE]], place: usize, columns: Range<usize>) {
        let width = columns.len();
        let rows = self.target[place * self.target_stride..].chunks_mut(self.target_stride);
        for (sums, row) in sums.iter().zip(rows) {
            store_sums(
                &sums[..width],
                &mut row[columns.start..][..width],
                self.accumulate,
            );
        }
    }
}

/// A product whose left side has contiguous rows, square by square of its target.
struct Squares<'a, F, T, P> {
    product: Product<'a, F, T>,
    runs: &'a [usize],
    /// Whole tiles of each run, and words beyond them.
    steps: usize,
    rest: usize,
    places: P,
}

impl<'a, F: Factor, T: Element> Squares<'a, F, T, InOrder> {
    fn of_rows(product: Product<'a, F, T>) -> Self {
        let (steps, rest) = (product.inner / TILE, product.inner % TILE);
        Self {
            product,
            runs: &[0],
            steps,
            rest,
            places: InOrder,
        }
    }
}

impl<F: Factor, T: Element, P: Places> Squares<'_, F, T, P> {
    /// The side that stays in cache is walked through for every piece of the other one.
    #[inline(always)]
    fn run(mut self) {
        let (rows, columns) = (self.product.rows, self.product.columns);
        let mut tiles = Tiles::default();
        let mut sums = Aligned([[0.0; SIDE]; SIDE]);
        if WORD * self.product.inner * columns <= RESIDENT_BYTES {
            for row in (0..rows).step_by(SIDE) {
                for column in (0..columns).step_by(PANEL) {
                    self.square(&mut tiles, &mut sums, row, column);
                }
            }
        } else {
            for column in (0..columns).step_by(PANEL) {
                for row in (0..rows).step_by(SIDE) {
                    self.square(&mut tiles, &mut sums, row, column);
                }
            }
        }
    }

    #[inline(always)]
    fn square(&mut self, tiles: &mut Tiles, sums: &mut Sums, row: usize, column: usize) {
        let height = SIDE.min(self.product.rows - row);
        let width = PANEL.min(self.product.columns - column);
        tiles.shape(height);
        match (height > TILE, width > TILE) {
            (true, true) => self.sum::<2, 2>(sums, row, column, [height, width]),
            (true, false) => self.sum::<2, 1>(sums, row, column, [height, width]),
            (false, true) => self.sum::<1, 2>(sums, row, column, [height, width]),
            (false, false) => self.sum::<1, 1>(sums, row, column, [height, width]),
        }
    }

    /// One square of `ROWS` times `COLUMNS` registers.
    #[inline(always)]
    fn sum<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        sums: &mut Sums,
        row: usize,
        column: usize,
        [height, width]: [usize; 2],
    ) {
        let rest = self.rest_of(row, column, [height, width]);
        let product = &mut self.product;
        let left = product.left.words[row * product.left.row_stride..].as_ptr();
        let mut right = product.right.words[product.right.place(column)..].as_ptr();
        let strides = [product.left.row_stride, product.right.row_stride].map(|s| s * WORD);
        // SAFETY: `Product::run` has checked the extents of all sides, whose columns are padded to whole tiles on the right;
        // `Tiles::shape` has given the registers the heights of this square.
        unsafe {
            product.sum_square::<ROWS, COLUMNS, P>(sums, [row, column], self.places, || {
                for run in self.runs {
                    let mut left = left.wrapping_add(*run);
                    for _ in 0..self.steps {
                        add::<ROWS, COLUMNS>(left, right, strides);
                        left = left.wrapping_add(TILE);
                        right = right.wrapping_byte_add(TILE * strides[1]);
                    }
                }
                if let Some(rest) = &rest {
                    let strides = [TILE, PANEL].map(|words| words * WORD);
                    add::<ROWS, COLUMNS>(
                        rest.left.0.as_ptr().cast(),
                        rest.right.0.as_ptr().cast(),
                        strides,
                    );
                }
            });
        }
    }

    /// The last words of the inner dimension, with zeros for those that a tile has beyond.
    #[inline(always)]
    fn rest_of(&self, row: usize, column: usize, [height, width]: [usize; 2]) -> Option<Rest> {
        if self.rest == 0 {
            return None;
        }
        let Product {
            left, right, inner, ..
        } = &self.product;
        let done = self.steps * TILE;
        let mut rest = Rest::default();
        for (index, line) in rest.left.0[..height].iter_mut().enumerate() {
            let start = (row + index) * left.row_stride + done;
            line[..self.rest].copy_from_slice(&left.words[start..][..inner - done]);
        }
        let width = width.next_multiple_of(TILE);
        for (index, line) in rest.right.0[..self.rest].iter_mut().enumerate() {
            let start = (done + index) * right.row_stride + right.place(column);
            line[..width].copy_from_slice(&right.words[start..][..width]);
        }
        Some(rest)
    }
}

/// One step of the inner dimension.
#[derive(Default)]
struct Rest {
    left: Aligned<[[f32; TILE]; SIDE]>,
    right: Aligned<[[f32; PANEL]; TILE]>,
}
