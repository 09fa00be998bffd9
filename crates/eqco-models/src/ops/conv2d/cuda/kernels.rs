//! Which library computes a convolution.
//!
//! One that reads exactly the pixel at its own place is a product of matrices `[N·H·W, C]` and `[O, C]`. cuBLASLt computes it near the
//! memory's speed, where cuDNN's older interface takes two to ten times as long on an H200, and adds the weights' gradient to the f32
//! sum without a rounding to bf16 on the way.

use candle_core::{DType, Result, Tensor};

use super::{Geometry, libraries};
use crate::cuda::{Cuda, Libraries, Matrix};
use crate::tape::BackwardPass;

/// Channels in bf16 that make rows of whole 16 bytes, as tensor cores read them.
const ALIGNED_CHANNELS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernels {
    /// cuDNN's.
    Convolution,
    /// cuBLASLt's.
    Product,
}

impl Kernels {
    pub(super) fn choose(geometry: &Geometry, dtype: DType) -> Self {
        let aligned = |channels: usize| channels.is_multiple_of(ALIGNED_CHANNELS);
        let rows_are_aligned = aligned(geometry.in_channels) && aligned(geometry.out_channels);
        if geometry.is_pointwise() && (dtype == DType::F32 || rows_are_aligned) {
            Self::Product
        } else {
            Self::Convolution
        }
    }

    /// For the profile.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Convolution => "cudnn",
            Self::Product => "cublaslt",
        }
    }

    /// From input `[N,H,W,C]` and weight `[O,k,k,C]` to output `[N,H,W,O]`, all of one type.
    pub(super) fn forward(
        self,
        libraries: &Libraries,
        geometry: &Geometry,
        [input, weight, output]: [&Tensor; 3],
    ) -> Result<()> {
        match self {
            Self::Convolution => libraries.convolve(geometry, input, weight, output),
            Self::Product => {
                let (input, weight, output) = (rows(input)?, rows(weight)?, rows(output)?);
                let (left, right) = (Matrix::plain(&input), Matrix::transposed(&weight));
                libraries.multiply(left, right, None, &output, false)
            }
        }
    }

    /// From input and the output's gradient to the weight's, in f32, which comes with whether to add to it.
    pub(super) fn weight_gradient(
        self,
        cuda: &Cuda,
        geometry: &Geometry,
        [input, gradient]: [&Tensor; 2],
        (target, accumulate): (Tensor, bool),
        pass: &BackwardPass<'_>,
    ) -> Result<()> {
        let libraries = libraries(cuda)?;
        match self {
            Self::Convolution if input.dtype() == target.dtype() => {
                libraries.weight_gradient(geometry, input, gradient, &target, accumulate)
            }
            Self::Convolution => {
                let rounded = pass.allocate(target.shape().clone(), input.dtype())?;
                libraries.weight_gradient(geometry, input, gradient, rounded.tensor(), false)?;
                cuda.widen(rounded.tensor(), &target, accumulate)
            }
            Self::Product => {
                let (input, gradient, target) = (rows(input)?, rows(gradient)?, rows(&target)?);
                let (left, right) = (Matrix::transposed(&gradient), Matrix::plain(&input));
                libraries.multiply(left, right, None, &target, accumulate)
            }
        }
    }

    /// From the output's gradient and the weight to the input's gradient, which comes with whether to add to it.
    pub(super) fn input_gradient(
        self,
        libraries: &Libraries,
        geometry: &Geometry,
        [gradient, weight]: [&Tensor; 2],
        (target, accumulate): (Tensor, bool),
    ) -> Result<()> {
        match self {
            Self::Convolution => {
                libraries.input_gradient(geometry, gradient, weight, &target, accumulate)
            }
            Self::Product => {
                let (gradient, weight, target) = (rows(gradient)?, rows(weight)?, rows(&target)?);
                let (left, right) = (Matrix::plain(&gradient), Matrix::plain(&weight));
                libraries.multiply(left, right, None, &target, accumulate)
            }
        }
    }
}

/// `[.., C]` as a matrix of rows of channels, in the same memory.
fn rows(tensor: &Tensor) -> Result<Tensor> {
    let channels = tensor.dim(candle_core::D::Minus1)?;
    tensor.reshape(((), channels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_on_their_own_are_rows_of_a_matrix_where_their_channels_are_aligned() {
        let geometry = |kernel: usize, stride: usize, in_channels: usize| Geometry {
            batch: 2,
            height: 9,
            width: 5,
            in_channels,
            out_channels: 16,
            kernel,
            stride,
            padding: kernel / 2,
        };
        let chosen = |kernel, stride, channels, dtype| {
            Kernels::choose(&geometry(kernel, stride, channels), dtype)
        };
        assert_eq!(chosen(1, 1, 24, DType::BF16), Kernels::Product);
        assert_eq!(chosen(1, 1, 12, DType::BF16), Kernels::Convolution);
        assert_eq!(chosen(1, 1, 12, DType::F32), Kernels::Product);
        for dtype in [DType::F32, DType::BF16] {
            assert_eq!(chosen(1, 2, 24, dtype), Kernels::Convolution);
            assert_eq!(chosen(3, 1, 24, dtype), Kernels::Convolution);
        }
    }

    #[test]
    fn rows_lie_in_the_same_memory() -> Result<()> {
        let tensor = Tensor::zeros((2, 3, 5, 7), DType::F32, &candle_core::Device::Cpu)?;
        let found = rows(&tensor)?;
        assert_eq!(found.dims(), [30, 7]);
        let address = |tensor: &Tensor| eqco_core::cuda::address(tensor);
        assert_eq!(address(&found)?, address(&tensor)?);
        Ok(())
    }
}
