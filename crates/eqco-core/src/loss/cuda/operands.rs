//! Inputs as kernels want them: contiguous, and all of one element type.

use candle_core::{DType, Tensor};

use crate::cuda::address;
use crate::error::LossError;

/// Bytes that a thread loads at once, and that addresses must be a multiple of for that.
const WIDEST_LOAD: u64 = 16;
/// Kernels count rows and values in 32 bits, and a block's worth beyond the end must not wrap.
const MOST: usize = i32::MAX as usize;

/// What all operands of an evaluation have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// f32, or bf16 if all inputs are.
    pub dtype: DType,
    /// Whether all rows begin at multiples of 16 bytes.
    pub wide: bool,
}

/// A contiguous matrix on the device.
#[derive(Debug)]
pub(super) struct Operand {
    tensor: Tensor,
    pub rows: usize,
    pub dim: usize,
}

impl Operand {
    fn new(tensor: &Tensor, dtype: DType) -> Result<Self, LossError> {
        let (rows, dim) = tensor.dims2()?;
        if rows > MOST || dim > MOST {
            let problem =
                format!("kernels take at most {MOST} rows and columns, got {rows} and {dim}");
            return Err(candle_core::Error::Msg(problem).into());
        }
        Ok(Self {
            tensor: tensor.to_dtype(dtype)?.contiguous()?,
            rows,
            dim,
        })
    }

    pub(super) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Where it begins on the device.
    pub(super) fn address(&self) -> Result<u64, LossError> {
        Ok(address(&self.tensor)?)
    }

    fn is_wide(&self) -> Result<bool, LossError> {
        let bytes_of_row = (self.dim * self.tensor.dtype().size_in_bytes()) as u64;
        Ok(bytes_of_row.is_multiple_of(WIDEST_LOAD) && self.address()?.is_multiple_of(WIDEST_LOAD))
    }
}

/// Matrices that [`super::super::checks`] let through, as operands of one format.
pub(super) fn in_one_format<const COUNT: usize>(
    tensors: [&Tensor; COUNT],
) -> Result<([Operand; COUNT], Format), LossError> {
    let all_bf16 = tensors.iter().all(|tensor| tensor.dtype() == DType::BF16);
    let dtype = if all_bf16 { DType::BF16 } else { DType::F32 };
    let operands = tensors
        .into_iter()
        .map(|tensor| Operand::new(tensor, dtype))
        .collect::<Result<Vec<_>, _>>()?;
    let wide = operands
        .iter()
        .map(Operand::is_wide)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .all(|wide| wide);
    let operands = operands
        .try_into()
        .unwrap_or_else(|_| unreachable!("as many operands as tensors"));
    Ok((operands, Format { dtype, wide }))
}
