//! How far a tensor is from another one.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};

/// max |found − expected| / max |expected|, in f64; NaN when anything is not a number. Of tensors whose values are all smaller than
/// `least` it is relative to that, and of zeros alone it is the absolute difference. Both may be on any device.
///
/// # Errors
/// When shapes or types differ.
pub fn distance(expected: &Tensor, found: &Tensor, least: f64) -> Result<f64> {
    ensure!(
        (expected.dims(), expected.dtype()) == (found.dims(), found.dtype()),
        "expected a tensor {:?} of {:?}, found {:?} of {:?}",
        expected.dims(),
        expected.dtype(),
        found.dims(),
        found.dtype()
    );
    let (expected, found) = (values(expected)?, values(found)?);
    let largest = expected.iter().map(|value| value.abs());
    let largest = largest.fold(least, larger);
    let differences = expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
    let furthest = differences.fold(0.0, larger);
    Ok(if largest == 0.0 {
        furthest
    } else {
        furthest / largest
    })
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    Ok(tensor.flatten_all()?.to_vec1()?)
}

/// The larger of two values, or NaN if one is: `f64::max` would hide it.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

/// Whether a distance is beyond a bound; what is not a number is as far as can be.
pub(super) fn is_beyond(distance: f64, bound: f64) -> bool {
    distance.is_nan() || distance > bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Result<Tensor> {
        Ok(Tensor::new(values, &Device::Cpu)?)
    }

    #[test]
    fn distances_are_those_of_the_largest_value_and_a_nan_is_beyond_any_bound() -> Result<()> {
        let exact = tensor(&[1.0, -4.0, 2.0])?;
        assert_eq!(distance(&exact, &tensor(&[1.0, -4.0, 1.5])?, 0.0)?, 0.125);
        assert_eq!(distance(&exact, &exact.copy()?, 0.0)?, 0.0);
        for place in 0..3 {
            let mut values = [1.0, -4.0, 2.0];
            values[place] = f32::NAN;
            let distance = distance(&exact, &tensor(&values)?, 0.0)?;
            assert!(distance.is_nan() && is_beyond(distance, 1e9));
        }
        let zeros = tensor(&[0.0; 2])?;
        assert_eq!(distance(&zeros, &tensor(&[0.0, 0.25])?, 0.0)?, 0.25);
        assert_eq!(distance(&zeros, &tensor(&[0.0, 0.25])?, 0.5)?, 0.5);
        Ok(())
    }

    #[test]
    fn tensors_of_other_shapes_or_types_have_no_distance() -> Result<()> {
        let exact = tensor(&[1.0, 2.0])?;
        for other in [exact.reshape((1, 2))?, exact.to_dtype(DType::BF16)?] {
            let error = distance(&exact, &other, 0.0).unwrap_err().to_string();
            assert!(error.contains("expected a tensor [2] of F32"), "{error}");
        }
        Ok(())
    }
}
