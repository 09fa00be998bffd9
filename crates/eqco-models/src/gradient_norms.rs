//! How long the gradients of a step are: told in one pass over them, and not finite as soon as one of their values is not.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::error::ModelError;
use crate::ops::access::read;
use crate::ops::lanes::{CHUNK, on_pool, vectorized};
use crate::params::{Parameter, ParameterSet};
use crate::profile::{Phase, Work, bytes_of};
use crate::tape::Gradients;

/// Sums that a sum of squares is made of, so that it vectorises without being reordered by the compiler.
const SUMS: usize = 8;

/// The sum of squares of every parameter's gradient, which on a GPU may be on its way still.
#[derive(Clone, Debug)]
#[must_use]
pub struct GradientNorms(Squares);

#[derive(Clone, Debug)]
enum Squares {
    Known(Vec<f64>),
    OnDevice(Tensor),
}

impl GradientNorms {
    /// Those of all parameters of `set`. On a CPU they are there when this returns; a GPU is given the work and not waited for.
    ///
    /// Squares of f32 are added up in f64, where no sum of finite ones overflows (on a GPU in f32, where values above 1e19
    /// do); the order does not depend on the number of threads.
    ///
    /// # Errors
    /// [`ModelError::MissingGradient`] when a backward pass has not reached a parameter.
    pub fn of(set: &ParameterSet, gradients: &Gradients) -> Result<Self, ModelError> {
        let all = set.parameters().iter().map(|parameter| {
            let missing = || ModelError::MissingGradient {
                parameter: parameter.name().to_owned(),
            };
            gradients.get(parameter).ok_or_else(missing)
        });
        let all: Vec<&Tensor> = all.collect::<Result<_, _>>()?;
        let Some(first) = all.first() else {
            return Ok(Self(Squares::Known(Vec::new())));
        };
        if !first.device().is_cpu() {
            let sums = all.iter().map(|gradient| gradient.sqr()?.sum_all());
            let sums: Vec<Tensor> = sums.collect::<candle_core::Result<_>>()?;
            return Ok(Self(Squares::OnDevice(Tensor::stack(&sums, 0)?)));
        }
        let squares = on_pool(|| {
            let squares = all.par_iter().map(|gradient| read(gradient, square_sum));
            squares.collect::<candle_core::Result<_>>()
        })?;
        Ok(Self(Squares::Known(squares)))
    }

    /// Whether [`Self::wait`] has to wait for no device.
    pub fn are_known(&self) -> bool {
        matches!(self.0, Squares::Known(_))
    }

    /// The norm of every parameter's gradient, by the parameter's index.
    ///
    /// # Errors
    /// When work on the device has failed.
    pub fn wait(self) -> Result<Vec<f64>, ModelError> {
        let squares = match self.0 {
            Squares::Known(squares) => squares,
            Squares::OnDevice(sums) => sums.to_dtype(DType::F64)?.to_vec1()?,
        };
        Ok(squares.into_iter().map(f64::sqrt).collect())
    }

    /// One pass for the profile: every gradient is read.
    pub fn work(set: &ParameterSet) -> Work {
        let values = set.parameters().iter().map(Parameter::value);
        Work::new("gradient norm", Phase::Other).moving(bytes_of(values))
    }
}

/// The norm of all gradients together, from those of its parts.
pub fn total_norm(norms: &[f64]) -> f64 {
    norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt()
}

fn square_sum(values: &[f32]) -> f64 {
    // Chunks are summed in order: the result does not depend on the number of threads.
    let sums: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|values| {
            vectorized(
                #[inline(always)]
                || square_sum_of_chunk(values),
            )
        })
        .collect();
    sums.iter().sum()
}

#[inline(always)]
fn square_sum_of_chunk(values: &[f32]) -> f64 {
    let mut sums = [0f64; SUMS];
    let (whole, rest) = values.as_chunks::<SUMS>();
    for values in whole {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*value) * f64::from(*value);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result};

    use super::*;
    use crate::ops::access::write;
    use crate::params::ParameterBuilder;

    /// Two parameters of 3 and of more than two chunks, whose gradients are 2 and 0.5 everywhere.
    fn two_parameters() -> Result<(ParameterSet, Gradients)> {
        let mut builder = ParameterBuilder::new(1, &Device::Cpu);
        builder.scope("small", |b| b.linear_weight("weight", 1, 3))?;
        builder.scope("large", |b| b.linear_weight("weight", 2 * CHUNK + 5, 1))?;
        let set = builder.finish();
        let mut gradients = Gradients::new(&set)?;
        for (parameter, value) in set.parameters().iter().zip([2f32, 0.5]) {
            write(&gradients.target(parameter).0, |all: &mut [f32]| {
                all.fill(value)
            })?;
        }
        Ok((set, gradients))
    }

    #[test]
    fn norms_are_those_by_hand_and_one_bad_value_anywhere_shows() -> Result<()> {
        let (set, mut gradients) = two_parameters()?;
        let norms = GradientNorms::of(&set, &gradients)?;
        assert!(norms.are_known());
        let norms = norms.wait()?;
        let large = (0.25 * (2 * CHUNK + 5) as f64).sqrt();
        assert_eq!(norms, [12f64.sqrt(), large]);
        assert!((total_norm(&norms) - (12.0 + large * large).sqrt()).abs() < 1e-12);

        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 7, CHUNK, 2 * CHUNK + 4] {
                let large = &set.parameters()[1];
                let set_to = |gradients: &mut Gradients, value| {
                    write(&gradients.target(large).0, |all: &mut [f32]| {
                        all[place] = value
                    })
                };
                set_to(&mut gradients, bad)?;
                let norms = GradientNorms::of(&set, &gradients)?.wait()?;
                assert!(norms[0].is_finite() && !norms[1].is_finite(), "{place}");
                assert!(!total_norm(&norms).is_finite());
                set_to(&mut gradients, 0.5)?;
            }
        }
        // The largest number has a square that f32 does not hold.
        write(
            &gradients.target(&set.parameters()[0]).0,
            |all: &mut [f32]| all.fill(f32::MAX),
        )?;
        assert!(GradientNorms::of(&set, &gradients)?.wait()?[0].is_finite());
        Ok(())
    }

    #[test]
    fn a_parameter_without_a_gradient_is_named() -> Result<()> {
        let (set, mut gradients) = two_parameters()?;
        gradients.reset();
        let message = GradientNorms::of(&set, &gradients).unwrap_err().to_string();
        assert!(
            message.contains("small.weight has no gradient"),
            "{message}"
        );
        Ok(())
    }
}
