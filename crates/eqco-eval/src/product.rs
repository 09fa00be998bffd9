//! Single-threaded f32 matrix products on row-major slices, through the `gemm` crate.
//!
//! Callers split their work into blocks of a fixed size and give every block to one thread, so that
//! results do not depend on the number of threads.

/// A row-major matrix `[rows, columns]` whose rows lie `stride` elements apart, or its transpose.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` rows of `columns` elements at the start of `values`, `stride` elements apart.
    pub(crate) fn new(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            rows > 0 && columns > 0 && columns <= stride,
            "a row is as long as its stride"
        );
        assert!(
            values.len() >= (rows - 1) * stride + columns,
            "the rows lie inside the slice"
        );
        Self {
            values,
            rows,
            columns,
            row_stride: stride,
            column_stride: 1,
        }
    }

    /// Rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `target = left · right`, `target` row-major without gaps, `[left.rows, right.columns]`.
pub(crate) fn multiply(target: &mut [f32], left: Matrix<'_>, right: Matrix<'_>) {
    assert_eq!(left.columns, right.rows, "inner dimensions agree");
    assert_eq!(
        target.len(),
        left.rows * right.columns,
        "the target has the product's shape"
    );
    // SAFETY: `Matrix::new` checked that every addressed element lies inside its slice, and
    // transposing addresses the same elements; the target's extent was checked above, and as `&mut`
    // it overlaps neither operand.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            target.as_mut_ptr(),
            1,
            right.columns as isize,
            false,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_views_and_transposes() {
        let a = [1.0, 2.0, 3.0, f32::NAN, 4.0, 5.0, 6.0]; // 2x3 with a gap of one
        let b = [1.0, 0.0, -1.0, 2.0, 0.5, 1.0]; // 3x2
        let mut target = [f32::NAN; 4];
        let (left, right) = (Matrix::new(&a, 2, 3, 4), Matrix::new(&b, 3, 2, 2));
        multiply(&mut target, left, right);
        assert_eq!(target, [0.5, 7.0, 2.0, 16.0]);
        multiply(&mut target, right.transposed(), left.transposed());
        assert_eq!(target, [0.5, 2.0, 7.0, 16.0]);
    }
}
