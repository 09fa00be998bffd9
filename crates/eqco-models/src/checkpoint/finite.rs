//! Whether a state is one that can be trained or measured: a file full of NaN is as whole as any other.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::Checkpoint;
use crate::error::ModelError;
use crate::ops::access::read;
use crate::ops::lanes::{CHUNK, on_pool, vectorized};

impl Checkpoint {
    /// The name of the first tensor with a value that is not finite.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn first_nonfinite(&self) -> Result<Option<&str>> {
        for (name, tensor) in &self.tensors {
            if !is_finite(tensor)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// The same checkpoint, if it can be trained on.
    ///
    /// # Errors
    /// [`ModelError::State`] with the first tensor that is not finite.
    pub fn ensure_finite(self) -> std::result::Result<Self, ModelError> {
        let Some(name) = self.first_nonfinite()? else {
            return Ok(self);
        };
        Err(ModelError::State {
            tensor: name.to_owned(),
            expected: "finite numbers".to_owned(),
            found: format!(
                "NaN or infinity after step {}: training has diverged, and no checkpoint is made of it; lower --lr, or go on \
                 from an earlier checkpoint",
                self.metadata.step
            ),
        })
    }
}

/// Whether all values of a tensor on any device are finite.
///
/// # Errors
/// When it cannot be read.
pub fn is_finite(tensor: &Tensor) -> Result<bool> {
    let wide = match tensor.dtype() {
        DType::F32 => tensor.clone(),
        // Exact, and infinities stay what they are.
        DType::F16 | DType::BF16 => tensor.to_dtype(DType::F32)?,
        DType::F64 => {
            let values = tensor.flatten_all()?.to_vec1::<f64>()?;
            return Ok(values.iter().all(|value| value.is_finite()));
        }
        _ => return Ok(true),
    };
    let here = wide.to_device(&Device::Cpu)?.contiguous()?;
    read(&here, |values: &[f32]| {
        on_pool(|| {
            values.par_chunks(CHUNK).all(|values| {
                vectorized(
                    #[inline(always)]
                    || {
                        // Without a branch, so that it vectorises: all bits of the exponent are set.
                        let found = values.iter().fold(0u32, |found, value| {
                            found | u32::from((value.to_bits() >> 23) & 0xff == 0xff)
                        });
                        found == 0
                    },
                )
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_anywhere_in_any_type_shows() -> Result<()> {
        let count = 2 * CHUNK + 3;
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            for place in [0, CHUNK, count - 1] {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values = vec![-1.5f32; count];
                    let tensor =
                        |values: &[f32]| Tensor::new(values, &Device::Cpu)?.to_dtype(dtype);
                    assert!(is_finite(&tensor(&values)?)?);
                    values[place] = bad;
                    assert!(!is_finite(&tensor(&values)?)?, "{dtype:?} {place} {bad}");
                }
            }
        }
        assert!(is_finite(&Tensor::new(&[u32::MAX], &Device::Cpu)?)?);
        assert!(is_finite(&Tensor::new(
            &[f32::MAX, f32::MIN_POSITIVE],
            &Device::Cpu
        )?)?);
        Ok(())
    }
}
