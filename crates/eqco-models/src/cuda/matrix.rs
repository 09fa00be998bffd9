//! Factors of matrix products.

use candle_core::Tensor;

/// A matrix of f32 or bf16 as it lies in memory, or that transposed.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "cuda"),
    expect(dead_code, reason = "nothing multiplies without a library")
)]
pub(crate) struct Matrix<'a> {
    pub(super) tensor: &'a Tensor,
    pub(super) transposed: bool,
}

impl<'a> Matrix<'a> {
    /// `tensor` itself.
    pub(crate) fn plain(tensor: &'a Tensor) -> Self {
        Self {
            tensor,
            transposed: false,
        }
    }

    /// `tensor` transposed.
    pub(crate) fn transposed(tensor: &'a Tensor) -> Self {
        Self {
            tensor,
            transposed: true,
        }
    }
}
