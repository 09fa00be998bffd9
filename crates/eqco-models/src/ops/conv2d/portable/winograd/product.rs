//! Matrix products on blocks that are in cache already, so that nothing is packed.
//!
//! A tile of the target stays in registers while one row of `right` and one value of each row of `left` are read a step.
//! The order of a sum is that of the inner dimension, whatever the tile: results do not depend on how rows are split.

use pulp::{Simd, WithSimd};

use crate::ops::lanes::dispatch;

/// A matrix with any strides.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) data: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

/// A row-major matrix, possibly a part of the columns of a wider one.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) data: &'a [f32],
    pub(super) row_stride: usize,
}

/// `target[rows, columns] (+)= left[rows, inner] · right[inner, columns]`, rows of the target `target_stride` apart.
pub(super) struct Product<'a> {
    pub(super) rows: usize,
    pub(super) inner: usize,
    /// A multiple of 16.
    pub(super) columns: usize,
    pub(super) left: Left<'a>,
    pub(super) right: Right<'a>,
    pub(super) target: &'a mut [f32],
    pub(super) target_stride: usize,
    pub(super) accumulate: bool,
}

impl Product<'_> {
    /// Computes it on the calling thread.
    pub(super) fn run(self) {
        assert!(
            self.columns.is_multiple_of(16),
            "columns are whole vectors of the widest unit"
        );
        if self.rows == 0 || self.columns == 0 || self.inner == 0 {
            return;
        }
        let last = [self.rows - 1, self.inner - 1];
        assert!(
            last[0] * self.left.row_stride + last[1] * self.left.column_stride
                < self.left.data.len()
        );
        assert!(last[1] * self.right.row_stride + self.columns <= self.right.data.len());
        assert!(last[0] * self.target_stride + self.columns <= self.target.len());
        dispatch(self);
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // Two vectors of columns, as many rows as 32 or 16 registers hold beside a row of `right` and a value of `left`.
        match S::F32_LANES {
            16 => self.panels::<S, 12, 16>(simd),
            8 => self.panels::<S, 6, 8>(simd),
            _ => self.panels::<S, 4, 8>(simd),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn panels<S: Simd, const ROWS: usize, const LAST_ROWS: usize>(&mut self, simd: S) {
        let pair = 2 * S::F32_LANES;
        let mut column = 0;
        while column + pair <= self.columns {
            self.panel::<S, ROWS, 2>(simd, column);
            column += pair;
        }
        while column < self.columns {
            self.panel::<S, LAST_ROWS, 1>(simd, column);
            column += S::F32_LANES;
        }
    }

    #[inline(always)]
    fn panel<S: Simd, const ROWS: usize, const VECTORS: usize>(&mut self, simd: S, column: usize) {
        let mut row = 0;
        while row + ROWS <= self.rows {
            self.tile::<S, ROWS, VECTORS>(simd, row, column);
            row += ROWS;
        }
        while row + 4 <= self.rows {
            self.tile::<S, 4, VECTORS>(simd, row, column);
            row += 4;
        }
        while row < self.rows {
            self.tile::<S, 1, VECTORS>(simd, row, column);
            row += 1;
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
        // SAFETY: `run` checked the extents of all three matrices; row + ROWS ≤ rows and column + VECTORS·lanes ≤
        // columns by the loops above, and index runs below inner. Vectors are read and written unaligned.
        unsafe {
            let left = self.left.data.as_ptr().add(row * self.left.row_stride);
            let right = self.right.data.as_ptr().add(column);
            for index in 0..self.inner {
                let line = right.add(index * self.right.row_stride);
                let value = left.add(index * self.left.column_stride);
                let mut vectors = [simd.splat_f32s(0.0); VECTORS];
                for (vector, loaded) in vectors.iter_mut().enumerate() {
                    *loaded = line
                        .add(vector * S::F32_LANES)
                        .cast::<S::f32s>()
                        .read_unaligned();
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factor = simd.splat_f32s(*value.add(row * self.left.row_stride));
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = simd.mul_add_e_f32s(factor, vector, *sum);
                    }
                }
            }
            let target = self
                .target
                .as_mut_ptr()
                .add(row * self.target_stride + column);
            for (row, sums) in sums.into_iter().enumerate() {
                for (vector, sum) in sums.into_iter().enumerate() {
                    let place = target
                        .add(row * self.target_stride + vector * S::F32_LANES)
                        .cast::<S::f32s>();
                    place.write_unaligned(if self.accumulate {
                        simd.add_f32s(place.read_unaligned(), sum)
                    } else {
                        sum
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_sums_in_double_precision_for_all_remainders() {
        let value = |i: usize| (i * 7919 % 1000) as f32 / 500.0 - 1.0;
        for (rows, inner, columns) in [(1, 1, 16), (5, 3, 32), (12, 7, 48), (31, 20, 80)] {
            let left: Vec<f32> = (0..rows * inner).map(value).collect();
            let right: Vec<f32> = (0..inner * columns).map(|i| value(i + 5)).collect();
            for (row_stride, column_stride) in [(inner, 1), (1, rows)] {
                for accumulate in [false, true] {
                    let mut target = vec![if accumulate { 0.5 } else { f32::NAN }; rows * columns];
                    Product {
                        rows,
                        inner,
                        columns,
                        left: Left {
                            data: &left,
                            row_stride,
                            column_stride,
                        },
                        right: Right {
                            data: &right,
                            row_stride: columns,
                        },
                        target: &mut target,
                        target_stride: columns,
                        accumulate,
                    }
                    .run();
                    for (index, found) in target.iter().enumerate() {
                        let (row, column) = (index / columns, index % columns);
                        let sum: f64 = (0..inner)
                            .map(|k| {
                                f64::from(left[row * row_stride + k * column_stride])
                                    * f64::from(right[k * columns + column])
                            })
                            .sum();
                        let expected = sum + if accumulate { 0.5 } else { 0.0 };
                        assert!(
                            (f64::from(*found) - expected).abs() < 1e-5,
                            "{rows}x{inner}x{columns} at {index}: {found} for {expected}"
                        );
                    }
                }
            }
        }
    }
}
