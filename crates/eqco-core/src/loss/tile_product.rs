//! Matrix products of one tile, on one thread; the threads are ours to hand out.

use gemm::Parallelism;

/// A row-major matrix, or the transposed view of one.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Tile<'a> {
    /// A row-major matrix whose rows have `columns` values.
    pub(super) fn new(values: &'a [f32], columns: usize) -> Self {
        let rows = values.len() / columns;
        assert_eq!(rows * columns, values.len(), "a tile of whole rows");
        Self {
            values,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `product = factor * left * right`, row-major.
pub(super) fn multiply(product: &mut [f32], factor: f32, left: Tile<'_>, right: Tile<'_>) {
    run(product, false, factor, left, right);
}

/// `sum += left * right`, row-major.
pub(super) fn add_product(sum: &mut [f32], left: Tile<'_>, right: Tile<'_>) {
    run(sum, true, 1.0, left, right);
}

fn run(target: &mut [f32], accumulate: bool, factor: f32, left: Tile<'_>, right: Tile<'_>) {
    assert_eq!(left.columns, right.rows, "inner sizes of a product");
    assert_eq!(target.len(), left.rows * right.columns, "size of a product");
    // SAFETY: `target` holds left.rows x right.columns values and is borrowed exclusively. A `Tile`
    // is built from a slice of rows x columns values with the strides of that very layout, and
    // transposing swaps sizes and strides together, so every offset that gemm forms lies within the
    // slice. The element type is f32 throughout.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            target.as_mut_ptr(),
            1,
            right.columns as isize,
            accumulate,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
