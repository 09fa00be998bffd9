//! Reading saved state back: every tensor that is missing or does not fit is named.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use crate::error::ModelError;

/// A count as a scalar tensor, for a checkpoint.
pub(crate) fn count_to_tensor(count: u64) -> Result<Tensor, ModelError> {
    let Ok(count) = i64::try_from(count) else {
        let problem = format!("a count of {count} is too large for a checkpoint");
        return Err(ModelError::Conflict { problem });
    };
    Ok(Tensor::new(count, &Device::Cpu)?)
}

/// The count that [`count_to_tensor`] stored as `name`.
pub(crate) fn count_from_state(
    tensors: &HashMap<String, Tensor>,
    name: &str,
) -> Result<u64, ModelError> {
    const EXPECTED: &str = "one integer of at least 0";
    let tensor = tensors
        .get(name)
        .ok_or_else(|| misfit(name, EXPECTED, "nothing"))?;
    if tensor.dtype() != DType::I64 || tensor.rank() != 0 {
        return Err(misfit(
            name,
            EXPECTED,
            format!("{:?} of shape {:?}", tensor.dtype(), tensor.dims()),
        ));
    }
    let count = tensor.to_scalar::<i64>()?;
    u64::try_from(count).map_err(|_| misfit(name, EXPECTED, count))
}

/// The tensor `name`, with the shape, element type and device of `target`, contiguous.
pub(crate) fn tensor_from_state(
    tensors: &HashMap<String, Tensor>,
    name: &str,
    target: &Tensor,
) -> Result<Tensor, ModelError> {
    let expected = || format!("{:?} of shape {:?}", target.dtype(), target.dims());
    let tensor = tensors
        .get(name)
        .ok_or_else(|| misfit(name, expected(), "nothing"))?;
    if tensor.dims() != target.dims() || tensor.dtype() != target.dtype() {
        return Err(misfit(
            name,
            expected(),
            format!("{:?} of shape {:?}", tensor.dtype(), tensor.dims()),
        ));
    }
    Ok(tensor.to_device(target.device())?.contiguous()?)
}

/// The error for a tensor of a saved state that does not fit.
pub(crate) fn misfit(name: &str, expected: impl ToString, found: impl ToString) -> ModelError {
    ModelError::State {
        tensor: name.into(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}
