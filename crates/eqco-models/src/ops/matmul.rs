//! Single-threaded f32 matrix products on views with any strides, through the `gemm` crate (AVX-512 at run time).

/// A read-only matrix view: `data[row * row_stride + column * column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// Row-major `[rows, columns]`.
    pub(crate) fn row_major(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert!(
            data.len() >= rows * columns,
            "a view of {rows}x{columns} needs more than {} elements",
            data.len()
        );
        Self {
            data,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// Only the given columns of a row-major view.
    pub(crate) fn columns(self, range: std::ops::Range<usize>) -> Self {
        assert!(
            self.column_stride == 1 && range.end <= self.columns,
            "columns {range:?} of {}",
            self.columns
        );
        Self {
            data: &self.data[range.start.min(self.data.len())..],
            columns: range.len(),
            ..self
        }
    }

    /// The same elements with rows and columns exchanged.
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

/// `target[rows, columns] (+)= left · right`, target row-major. On the calling thread alone.
pub(crate) fn matmul(target: &mut [f32], accumulate: bool, left: View<'_>, right: View<'_>) {
    let (rows, inner, columns) = (left.rows, left.columns, right.columns);
    assert_eq!(inner, right.rows, "inner dimensions agree");
    assert!(
        target.len() >= rows * columns,
        "the target holds rows x columns"
    );
    if rows * columns == 0 {
        return;
    }
    // SAFETY: `View::row_major` checked that its extents lie inside its slice, and narrowing to columns or transposing
    // only ever addresses a subset of those elements; the target's extent was checked above, and `target` cannot alias `left` or `right` (&mut against &).
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            target.as_mut_ptr(),
            1,
            columns as isize,
            accumulate,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
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
    fn products_with_transposed_views_and_accumulation() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // 2x3
        let b = [1.0, 0.0, -1.0, 2.0, 0.5, 1.0]; // 3x2
        let mut c = [f32::NAN; 4];
        matmul(
            &mut c,
            false,
            View::row_major(&a, 2, 3),
            View::row_major(&b, 3, 2),
        );
        assert_eq!(c, [0.5, 7.0, 2.0, 16.0]);
        matmul(
            &mut c,
            true,
            View::row_major(&b, 3, 2).transposed(),
            View::row_major(&a, 2, 3).transposed(),
        );
        assert_eq!(c, [1.0, 9.0, 9.0, 32.0]); // b'a' = (ab)' = [[0.5, 2], [7, 16]]
    }
}
