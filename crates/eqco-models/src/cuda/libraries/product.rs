//! cuBLASLt's matrix products, for linear layers.

use candle_core::cuda_backend::cudarc::cublaslt::{Matmul, MatmulConfig};
use candle_core::{Error, Result, Tensor};

use super::Libraries;
use super::at::At;
use crate::cuda::Matrix;

impl Libraries {
    /// target `[rows, columns]` (+)= left `[rows, inner]` · right `[inner, columns]` (+ bias `[columns]`), in f32.
    pub(crate) fn multiply(
        &self,
        left: Matrix<'_>,
        right: Matrix<'_>,
        bias: Option<&Tensor>,
        target: &Tensor,
        accumulate: bool,
    ) -> Result<()> {
        let (rows, columns) = target.dims2()?;
        let (first, second) = left.tensor.dims2()?;
        let inner = if left.transposed { first } else { second };
        // Column-major, the library's order, is the transpose of ours: targetᵀ = rightᵀ · leftᵀ.
        let config = MatmulConfig {
            transa: right.transposed,
            transb: left.transposed,
            transc: false,
            m: columns as u64,
            n: rows as u64,
            k: inner as u64,
            alpha: 1.0,
            lda: right.tensor.dim(1)? as i64,
            ldb: second as i64,
            beta: if accumulate { 1.0 } else { 0.0 },
            ldc: columns as i64,
            stride_a: None,
            stride_b: None,
            stride_c: None,
            stride_bias: None,
            batch_size: None,
        };
        let read = |tensor| At::read(tensor, &self.stream);
        let (a, b) = (read(right.tensor)?, read(left.tensor)?);
        let mut c = At::written(target, &self.stream)?;
        let bias = bias.map(read).transpose()?;
        // SAFETY: sizes and strides are those of the tensors.
        let launched = unsafe {
            Matmul::<f32>::matmul(&self.products, config, &a, &b, &mut c, bias.as_ref(), None)
        };
        launched.map_err(Error::wrap)
    }
}
