//! The momentum encoder's update: an exponential moving average of the online encoder's parameters.

use candle_core::Tensor;
use eqco_core::cuda::{address, address_mut};
use rayon::prelude::*;

use crate::backend::Backend;
use crate::cuda::{Arrays, Cuda};
use crate::error::{ModelError, check_range};
use crate::ops::access::{copy_into, read, write};
use crate::ops::lanes::zip_chunks;
use crate::params::{Parameter, ParameterSet};
use crate::profile::{Phase, Work, bytes_of};

/// target ← c·target + (1−c)·source for every parameter, in place, with c = `ema_coefficient` in `0..=1` (MoCo, equation 2).
///
/// Parameters are paired by name. Buffers are not touched: the momentum encoder's running statistics come from its own
/// forward passes. Computed as target + (1−c)·(source − target), which leaves a target that equals its source exactly as
/// it is, however often it is applied.
///
/// # Errors
/// When the coefficient is out of range, names or shapes differ, or both sets share a value. Nothing is changed then.
pub fn ema_update(
    target: &ParameterSet,
    source: &ParameterSet,
    ema_coefficient: f64,
    backend: &Backend,
) -> Result<(), ModelError> {
    let in_range = (0.0..=1.0).contains(&ema_coefficient);
    check_range(
        "ema_coefficient",
        "a number from 0 to 1",
        ema_coefficient,
        in_range,
    )?;
    check_pairs(target.parameters(), source.parameters())?;
    if let Some(cuda) = backend.cuda() {
        return Ok(on_cuda(cuda, target, source, ema_coefficient)?);
    }
    target
        .parameters()
        .par_iter()
        .zip(source.parameters())
        .try_for_each(|(target, source)| {
            move_towards(target.value(), source.value(), ema_coefficient)
        })?;
    Ok(())
}

/// All parameters in one launch.
fn on_cuda(
    cuda: &Cuda,
    target: &ParameterSet,
    source: &ParameterSet,
    ema_coefficient: f64,
) -> candle_core::Result<()> {
    let pairs = target.parameters().iter().zip(source.parameters());
    let row = |(target, source): (&Parameter, &Parameter)| {
        Ok(Arrays {
            addresses: [address_mut(target.value())?, address(source.value())?, 0, 0],
            count: target.value().elem_count(),
            number: 0.0,
        })
    };
    let Some(first) = target.parameters().first() else {
        return Ok(());
    };
    let rows = pairs.map(row).collect::<candle_core::Result<_>>()?;
    let table = cuda.table(rows, first.value().device())?;
    let launch = table
        .launch("move_towards")?
        .arg((1.0 - ema_coefficient) as f32);
    // SAFETY: the table holds live tensors of the sizes that it says, all of them f32.
    unsafe { cuda.launch(&launch) }
}

/// One pass at the speed of memory. It is not merged with the optimiser's, which reads the same values, because it belongs
/// to the beginning of the next step: a checkpoint holds the momentum encoder before it.
fn move_towards(target: &Tensor, source: &Tensor, ema_coefficient: f64) -> candle_core::Result<()> {
    if ema_coefficient == 0.0 {
        return copy_into(target, source);
    }
    let share_of_new = (1.0 - ema_coefficient) as f32;
    read(source, |source: &[f32]| {
        write(target, |target: &mut [f32]| {
            zip_chunks(
                target,
                source,
                #[inline(always)]
                |target, source| {
                    for (t, s) in target.iter_mut().zip(source) {
                        *t += share_of_new * (s - *t);
                    }
                },
            );
        })
    })?
}

/// One update for the profile: target and source are read, the target is written.
pub(crate) fn ema_work(source: &ParameterSet) -> Work {
    let parameters = source.parameters().iter().map(Parameter::value);
    Work::new("momentum encoder", Phase::Other).moving(3 * bytes_of(parameters))
}

fn check_pairs(targets: &[Parameter], sources: &[Parameter]) -> Result<(), ModelError> {
    for position in 0..targets.len().max(sources.len()) {
        let (target, source) = (targets.get(position), sources.get(position));
        let (Some(target), Some(source)) = (target, source) else {
            return Err(mismatch(position, target, source));
        };
        if target.name() != source.name() {
            return Err(mismatch(position, Some(target), Some(source)));
        }
        if target.value().dims() != source.value().dims() {
            let (expected, found) = (
                target.value().dims().to_vec(),
                source.value().dims().to_vec(),
            );
            return Err(ModelError::Shape {
                tensor: target.name().into(),
                expected,
                found,
            });
        }
        if target.value().id() == source.value().id() {
            // Locking one tensor for reading and writing would wait for ever.
            let problem = format!(
                "parameter {} of the momentum encoder is the online encoder's own tensor: give it a copy of its own",
                target.name()
            );
            return Err(ModelError::Conflict { problem });
        }
    }
    Ok(())
}

fn mismatch(position: usize, target: Option<&Parameter>, source: Option<&Parameter>) -> ModelError {
    let name = |parameter: Option<&Parameter>| {
        parameter
            .map_or("no further parameter", Parameter::name)
            .to_string()
    };
    ModelError::ParameterMismatch {
        position,
        expected: name(target),
        found: name(source),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Tensor};

    use super::*;
    use crate::cuda::tests::families;
    use crate::params::ParameterBuilder;

    /// A convolution larger than one chunk, a normalisation and its running mean, all of which depend on the seed.
    fn set(seed: u64) -> Result<ParameterSet> {
        let mut builder = ParameterBuilder::new(seed, &Device::Cpu);
        builder.scope("conv", |b| b.conv_weight("weight", 64, 33, 3))?;
        builder.scope("bn", |b| {
            b.norm(5, 1.0 + seed as f32)?;
            b.buffer("running_mean", 5, seed as f32)
        })?;
        builder.scope("fc", |b| b.linear_weight("weight", 3, 7))?;
        Ok(builder.finish())
    }

    fn values(tensor: &Tensor) -> Result<Vec<f32>> {
        tensor.flatten_all()?.to_vec1()
    }

    #[test]
    fn repeated_updates_follow_a_float64_reference_and_leave_buffers_alone() -> Result<()> {
        families().into_iter().try_for_each(|backend| {
            let (target, source) = (set(1)?, set(2)?);
            let mut reference: Vec<Vec<f64>> = Vec::new();
            for parameter in target.parameters() {
                reference.push(
                    values(parameter.value())?
                        .iter()
                        .map(|v| f64::from(*v))
                        .collect(),
                );
            }
            for ema_coefficient in [0.99, 0.9, 0.999, 0.5] {
                ema_update(&target, &source, ema_coefficient, &backend)?;
                for (reference, source) in reference.iter_mut().zip(source.parameters()) {
                    for (r, s) in reference.iter_mut().zip(values(source.value())?) {
                        *r = ema_coefficient * *r + (1.0 - ema_coefficient) * f64::from(s);
                    }
                }
            }
            for (reference, target) in reference.iter().zip(target.parameters()) {
                let largest = reference.iter().fold(0f64, |m, r| m.max(r.abs()));
                for (got, expected) in values(target.value())?.iter().zip(reference) {
                    assert!(
                        (f64::from(*got) - expected).abs() <= 4e-7 * largest,
                        "{}: {got} {expected}",
                        target.name()
                    );
                }
            }
            assert_eq!(values(target.buffers()[0].value())?, vec![1.0; 5]);
            assert_eq!(values(source.buffers()[0].value())?, vec![2.0; 5]);
            Ok(())
        })
    }

    #[test]
    fn the_ends_of_the_range_and_the_fixed_point_are_exact() -> Result<()> {
        families().into_iter().try_for_each(|backend| {
            let (target, source) = (set(1)?, set(2)?);
            let before = values(target.parameters()[0].value())?;
            ema_update(&target, &source, 1.0, &backend)?;
            assert_eq!(values(target.parameters()[0].value())?, before);
            ema_update(&target, &source, 0.0, &backend)?;
            let copied = values(source.parameters()[0].value())?;
            assert_eq!(values(target.parameters()[0].value())?, copied);
            for _ in 0..10 {
                ema_update(&target, &source, 0.999, &backend)?;
            }
            assert_eq!(values(target.parameters()[0].value())?, copied);
            Ok(())
        })
    }

    #[test]
    fn other_names_shapes_coefficients_and_shared_values_are_refused() -> Result<()> {
        let target = set(1)?;
        let build = |name: &str, out: usize| -> Result<ParameterSet> {
            let mut builder = ParameterBuilder::new(2, &Device::Cpu);
            builder.scope("conv", |b| b.conv_weight(name, out, 33, 3))?;
            Ok(builder.finish())
        };
        let message = |source: &ParameterSet, c: f64| {
            ema_update(&target, source, c, &Backend::Portable)
                .unwrap_err()
                .to_string()
        };
        let renamed = message(&build("kernel", 64)?, 0.9);
        assert!(
            renamed.contains("expected conv.weight, found conv.kernel"),
            "{renamed}"
        );
        let shorter = message(&build("weight", 64)?, 0.9);
        assert!(
            shorter.contains("position 1: expected bn.weight, found no further parameter"),
            "{shorter}"
        );
        let reshaped = message(&build("weight", 65)?, 0.9);
        assert!(
            reshaped.contains("[64, 3, 3, 33]") && reshaped.contains("[65, 3, 3, 33]"),
            "{reshaped}"
        );
        assert!(message(&set(2)?, 1.5).contains("got 1.5"));
        assert!(message(&target.clone(), 0.9).contains("own tensor"));
        Ok(())
    }
}
