//! Reading tensors on the CPU: inputs as plain rows.

use std::ops::Range;

use candle_core::{CpuStorage, DType, Layout, Storage, Tensor};
use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::error::LossError;

/// The rows of a matrix in the element type that they are stored in.
pub(super) enum Rows<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl<'a> Rows<'a> {
    /// The values of a contiguous tensor that [`super::checks`] let through.
    pub(super) fn of(
        input: &'static str,
        storage: &'a Storage,
        layout: &Layout,
    ) -> Result<Self, LossError> {
        let (start, end) =
            layout
                .contiguous_offsets()
                .ok_or(candle_core::Error::RequiresContiguous {
                    op: "contrastive loss",
                })?;
        match storage {
            Storage::Cpu(CpuStorage::F32(values)) => Ok(Rows::F32(&values[start..end])),
            Storage::Cpu(CpuStorage::BF16(values)) => Ok(Rows::Bf16(&values[start..end])),
            Storage::Cpu(_) => Err(LossError::Dtype {
                input,
                got: storage.dtype(),
            }),
            _ => Err(LossError::Device {
                input,
                got: storage.device(),
            }),
        }
    }

    /// Rows `range` of `dim` values as f32; bf16 is widened into `buffer`, f32 is lent as it lies.
    pub(super) fn tile<'t>(
        &'t self,
        range: Range<usize>,
        dim: usize,
        buffer: &'t mut Vec<f32>,
    ) -> &'t [f32] {
        let span = range.start * dim..range.end * dim;
        match self {
            Rows::F32(values) => &values[span],
            Rows::Bf16(values) => {
                buffer.resize(span.len(), 0.0);
                values[span].convert_to_f32_slice(buffer);
                buffer
            }
        }
    }

    /// Number of stored values.
    pub(super) fn len(&self) -> usize {
        match self {
            Rows::F32(values) => values.len(),
            Rows::Bf16(values) => values.len(),
        }
    }
}

/// A copy of a matrix as f32 rows; any strides.
pub(super) fn to_f32(tensor: &Tensor) -> Result<Vec<f32>, LossError> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// Gradient rows as a tensor of the shape and element type of the input that they belong to.
pub(super) fn gradient_of(input: &Tensor, rows: Vec<f32>) -> Result<Tensor, LossError> {
    Ok(Tensor::from_vec(rows, input.shape(), input.device())?.to_dtype(input.dtype())?)
}
