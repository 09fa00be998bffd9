//! The matrix products between transformed tiles and weights, one for each of the 36 points.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::layout::{BLOCK, BLOCK_WORDS, Layout};
use super::transforms::POINTS;
use super::weights::WeightLayout;
use crate::ops::factor::{Factor, words};
use crate::ops::lanes::prefetch;

/// Inputs of more bytes are not in the second-level cache.
const NEAR_BYTES: usize = 1 << 19;

/// `products[tiles, to] = inputs[tiles, from] · weights[from, to]`.
pub(super) struct TileProducts<'a, F> {
    pub(super) tiles: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    /// Words of channels.
    pub(super) inputs: &'a [f32],
    /// In a [`WeightLayout`].
    pub(super) weights: &'a [f32],
    /// In the layout of f32 tiles.
    pub(super) products: &'a mut [f32],
    pub(super) factor: PhantomData<F>,
}

impl<F: Factor> TileProducts<'_, F> {
    /// Computes them on the calling thread.
    pub(super) fn run(self) {
        // What the unchecked loads and stores below rely on.
        let (inputs, products) = self.layouts();
        assert!(self.from.is_multiple_of(BLOCK) && self.to.is_multiple_of(BLOCK));
        assert_eq!(self.inputs.len(), inputs.len(self.tiles));
        let weights = WeightLayout::new::<F>(self.to);
        assert_eq!(self.weights.len(), weights.len(self.from));
        assert_eq!(self.products.len(), products.len(self.tiles));
        F::dispatch(self);
    }

    fn layouts(&self) -> (Layout, Layout) {
        (
            Layout::of_channels::<F>(self.from),
            Layout::of_tiles::<f32>(self.to),
        )
    }
}

impl<F: Factor> WithSimd for TileProducts<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // Vectors of columns and so many rows as 32 or 16 registers hold.
        match (S::F32_LANES, self.to) {
            (16, BLOCK) => self.points::<S, 16, 1>(simd),
            (16, _) => self.points::<S, 12, 2>(simd),
            (8, _) => self.points::<S, 6, 2>(simd),
            _ => self.points::<S, 4, 2>(simd),
        }
    }
}

impl<F: Factor> TileProducts<'_, F> {
    #[inline(always)]
    fn points<S: Simd, const ROWS: usize, const VECTORS: usize>(&mut self, simd: S) {
        for point in 0..POINTS {
            for column in (0..self.to).step_by(VECTORS * S::F32_LANES) {
                let is_single = self.to - column <= S::F32_LANES;
                let mut row = 0;
                while row < self.tiles {
                    let place = [point, row, column];
                    // SAFETY: the rows and columns that each call takes are there.
                    row += unsafe {
                        match (self.tiles - row, is_single) {
                            (rest, true) if rest >= ROWS => self.tile::<S, ROWS, 1>(simd, place),
                            (rest, false) if rest >= ROWS => {
                                self.tile::<S, ROWS, VECTORS>(simd, place)
                            }
                            (4.., true) => self.tile::<S, 4, 1>(simd, place),
                            (4.., false) => self.tile::<S, 4, VECTORS>(simd, place),
                            (_, true) => self.tile::<S, 1, 1>(simd, place),
                            (_, false) => self.tile::<S, 1, VECTORS>(simd, place),
                        }
                    };
                }
            }
        }
    }

    /// Returns its height.
    ///
    /// # Safety
    /// So many rows and vectors of columns must be there.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        simd: S,
        [point, row, column]: [usize; 3],
    ) -> usize {
        let (from, to) = self.layouts();
        let line = BLOCK / F::DEPTH;
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        // SAFETY: `run` checked that the arrays are whole, and the caller the rows and columns.
        unsafe {
            let start = self.inputs.as_ptr();
            let mut left = start.add(row * from.stride() + point * line);
            let is_far = size_of_val(self.inputs) > NEAR_BYTES;
            // What is read next: the rows below, or the first ones at the next point.
            let mut next = if row + ROWS < self.tiles {
                left.wrapping_add(ROWS * from.stride())
            } else {
                start.wrapping_add((point + 1) * line)
            };
            let weights = WeightLayout::new::<F>(self.to).stride();
            let mut right = self.weights.as_ptr().add(point * weights + column);
            for _ in 0..from.blocks {
                if is_far {
                    for index in 0..ROWS {
                        prefetch(next.wrapping_add(index * from.stride()));
                    }
                    next = next.wrapping_add(POINTS * line);
                }
                for word in 0..line {
                    let mut vectors = [simd.splat_f32s(0.0); VECTORS];
                    for (index, vector) in vectors.iter_mut().enumerate() {
                        let source = right.add(word * self.to + index * S::F32_LANES);
                        *vector = source.cast::<S::f32s>().read_unaligned();
                    }
                    for (index, sums) in sums.iter_mut().enumerate() {
                        let factor = simd.splat_f32s(*left.add(index * from.stride() + word));
                        for (sum, vector) in sums.iter_mut().zip(vectors) {
                            *sum = F::multiply_add(simd, factor, vector, *sum);
                        }
                    }
                }
                left = left.wrapping_add(POINTS * line);
                right = right.wrapping_add(POINTS * weights);
            }
            for (index, sums) in sums.into_iter().enumerate() {
                let start = (row + index) * to.stride() + point * BLOCK;
                for (vector, sum) in sums.into_iter().enumerate() {
                    let column = column + vector * S::F32_LANES;
                    let place = start + column / BLOCK * BLOCK_WORDS + column % BLOCK;
                    let target = self.products.as_mut_ptr().add(place);
                    target.cast::<S::f32s>().write_unaligned(sum);
                }
            }
        }
        ROWS
    }
}

/// `sums[range, inputs] (+)= gradients[tiles, range]ᵀ · x[tiles, inputs]`.
pub(super) struct GradientProducts<'a, F> {
    pub(super) tiles: usize,
    /// Output channels of all, and those of them that are taken.
    pub(super) outputs: usize,
    pub(super) range: Range<usize>,
    pub(super) inputs: usize,
    /// Words of tiles, all output channels.
    pub(super) gradients: &'a [f32],
    /// Words of tiles.
    pub(super) x: &'a [f32],
    /// `[36, range, inputs]`.
    pub(super) sums: &'a mut [f32],
    pub(super) accumulate: bool,
    pub(super) factor: PhantomData<F>,
}

impl<F: Factor> GradientProducts<'_, F> {
    /// Computes them on the calling thread.
    pub(super) fn run(self) {
        // What the unchecked loads and stores below rely on.
        assert!(self.inputs.is_multiple_of(BLOCK) && self.outputs.is_multiple_of(BLOCK));
        assert!(self.range.start.is_multiple_of(BLOCK) && self.range.end.is_multiple_of(BLOCK));
        assert!(self.range.end <= self.outputs);
        let [gradients, x] = self.layouts();
        assert_eq!(self.gradients.len(), gradients.len(self.tiles));
        assert_eq!(self.x.len(), x.len(self.tiles));
        assert_eq!(self.sums.len(), POINTS * self.range.len() * self.inputs);
        F::dispatch(self);
    }

    fn layouts(&self) -> [Layout; 2] {
        [self.outputs, self.inputs].map(Layout::of_tiles::<F>)
    }
}

impl<F: Factor> WithSimd for GradientProducts<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // Rows divide a block of channels.
        match (S::F32_LANES, self.inputs) {
            (16, BLOCK) => self.points::<S, 16, 1>(simd),
            (16, _) => self.points::<S, 8, 2>(simd),
            _ => self.points::<S, 4, 2>(simd),
        }
    }
}

impl<F: Factor> GradientProducts<'_, F> {
    #[inline(always)]
    fn points<S: Simd, const ROWS: usize, const VECTORS: usize>(&mut self, simd: S) {
        for point in 0..POINTS {
            for column in (0..self.inputs).step_by(VECTORS * S::F32_LANES) {
                let is_single = self.inputs - column <= S::F32_LANES;
                for row in self.range.clone().step_by(ROWS) {
                    let place = [point, row, column];
                    // SAFETY: the rows divide the range, and the columns are there.
                    unsafe {
                        if is_single {
                            self.tile::<S, ROWS, 1>(simd, place);
                        } else {
                            self.tile::<S, ROWS, VECTORS>(simd, place);
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// So many rows, within one block of channels, and vectors of columns must be there.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        simd: S,
        [point, row, column]: [usize; 3],
    ) {
        let [gradients, x] = self.layouts();
        let place =
            |channel: usize| channel / BLOCK * BLOCK_WORDS + point * BLOCK + channel % BLOCK;
        let columns: [usize; VECTORS] =
            std::array::from_fn(|vector| place(column + vector * S::F32_LANES));
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        // SAFETY: `run` checked that the arrays are whole, and the caller the rows and columns.
        unsafe {
            let mut left = self.gradients.as_ptr().add(place(row));
            let mut right = self.x.as_ptr();
            for _ in 0..words::<F>(self.tiles) {
                let mut vectors = [simd.splat_f32s(0.0); VECTORS];
                for (vector, column) in vectors.iter_mut().zip(columns) {
                    *vector = right.add(column).cast::<S::f32s>().read_unaligned();
                }
                for (index, sums) in sums.iter_mut().enumerate() {
                    let factor = simd.splat_f32s(*left.add(index));
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = F::multiply_add(simd, factor, vector, *sum);
                    }
                }
                left = left.wrapping_add(gradients.stride());
                right = right.wrapping_add(x.stride());
            }
            for (index, sums) in sums.into_iter().enumerate() {
                let row = point * self.range.len() + row - self.range.start + index;
                let target = self.sums.as_mut_ptr().add(row * self.inputs + column);
                for (vector, sum) in sums.into_iter().enumerate() {
                    let target = target.add(vector * S::F32_LANES).cast::<S::f32s>();
                    target.write_unaligned(if self.accumulate {
                        simd.add_f32s(target.read_unaligned(), sum)
                    } else {
                        sum
                    });
                }
            }
        }
    }
}
