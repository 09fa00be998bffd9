//! How fast a device is, and how fast the kernels are on it.

mod breakdown;
mod ceilings;
mod contrast;
mod layers;
mod updates;
mod upload;

use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};

use super::kernels::Place;
use super::outcome::Outcome;

pub use ceilings::{COPY, PRODUCT_IN_BF16, PRODUCT_IN_F32, copy_rate};
pub use contrast::{FUSED_LOSS, FusedLoss, MATERIALISED_LOSS, MaterialisedLoss};
pub use layers::BATCH_NORM;
pub use updates::UPDATES;

/// How large the arrays are that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Those of ResNet-50 with 256 images of 224 pixels.
    Full,
    /// A few values each: shows that the code runs.
    Tiny,
}

impl Scale {
    /// `size` at full scale, or a small one.
    fn of(self, size: usize, tiny: usize) -> usize {
        match self {
            Self::Full => size,
            Self::Tiny => tiny,
        }
    }
}

/// The shortest time that counts, in seconds: of one call it would be the clock's resolution.
const ROUND: f64 = 0.05;
const ROUNDS: usize = 3;
const MOST_CALLS: usize = 200;
const FEWEST_CALLS: usize = 3;
/// More than there are pieces of memory that uploads go through in turn, each of which is allocated when it is first used.
const WARM_UP_CALLS: usize = 5;

/// Seconds of one call of `run` on `device`: the median of some rounds of so many calls that a round takes a while, with a wait for
/// the device around each. Two calls go before, in which algorithms are chosen and memory is allocated.
///
/// # Errors
/// When a call fails.
pub fn seconds_per_call(device: &Device, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut round = |calls: usize| -> Result<f64> {
        device.synchronize()?;
        let start = Instant::now();
        for _ in 0..calls {
            run()?;
        }
        device.synchronize()?;
        Ok(start.elapsed().as_secs_f64() / calls as f64)
    };
    round(WARM_UP_CALLS)?;
    let calls = ((ROUND / round(1)?.max(1e-7)) as usize).clamp(FEWEST_CALLS, MOST_CALLS);
    let rounds = (0..ROUNDS).map(|_| round(calls));
    Ok(median(rounds.collect::<Result<_>>()?))
}

/// The middle of some numbers; of an even count, the upper one. 0 of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Times everything at `place`. What fails ends its group, and the others are timed all the same; the first failure is the outcome's.
pub(super) fn measure(
    place: Place<'_>,
    scale: Scale,
    progress: &dyn Fn(&str),
    keep: &dyn Fn(&Outcome),
) -> Outcome {
    type Group = fn(Place<'_>, Scale) -> Result<Outcome>;
    let groups: [(&str, Group); 6] = [
        ("ceilings", ceilings::measure),
        ("layers", layers::measure),
        ("optimiser and momentum encoder", updates::measure),
        ("loss", contrast::measure),
        ("upload", upload::measure),
        ("where a step goes", breakdown::measure),
    ];
    let mut all = Outcome::default();
    for (name, group) in groups {
        progress(name);
        match group(place, scale) {
            Ok(found) => {
                all.measurements.extend(found.measurements);
                all.notes.extend(found.notes);
                all.error = all.error.or(found.error);
            }
            Err(error) => {
                all.error.get_or_insert(format!("{name}: {error:#}"));
            }
        }
        keep(&all);
    }
    all
}

/// Uniform values in −1..1 on a device.
fn noise(shape: &[usize], place: Place<'_>) -> Result<Tensor> {
    Tensor::rand(-1f32, 1f32, shape, place.device)
        .with_context(|| format!("no room for {shape:?} on the device"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use eqco_models::backend::Backend;

    use super::*;

    #[test]
    fn everything_can_be_timed_and_all_work_is_counted() {
        let place = Place {
            device: &Device::Cpu,
            backend: &Backend::Portable,
        };
        let kept = Cell::new(0);
        let keep = |outcome: &Outcome| kept.set(outcome.measurements.len());
        let outcome = measure(place, Scale::Tiny, &|_| (), &keep);
        // Of a few values a backward pass can take less than nothing: noise of the clock, which is an error.
        let named = |name: &str| outcome.measurements.iter().find(|m| m.name == name);
        for name in [COPY, PRODUCT_IN_F32, UPDATES, FUSED_LOSS, MATERIALISED_LOSS] {
            let measurement = named(name);
            assert!(measurement.is_some_and(|m| m.milliseconds > 0.0), "{name}");
        }
        assert_eq!(kept.get(), outcome.measurements.len());
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
