//! The same steps on two devices, each from the same state.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use eqco_models::Precision;
use eqco_models::backend::Backend;

use super::Problem;
use super::distance::{distance, is_beyond};
use super::problem::State;

/// How near two families of kernels are, over some steps. Distances are those of the largest value of each tensor.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    /// The largest distance of a step's loss, relative to it.
    pub loss: f64,
    /// For every step: the furthest tensor's distance, among gradients and all state after the step, and its name.
    pub steps: Vec<(f64, String)>,
}

impl Agreement {
    /// Steps in which some tensor is further than `bound` from the CPU's.
    pub fn steps_beyond(&self, bound: f64) -> usize {
        let beyond = |(distance, _): &&(f64, String)| is_beyond(*distance, bound);
        self.steps.iter().filter(beyond).count()
    }

    /// The furthest tensor of all steps.
    pub fn furthest(&self) -> (f64, &str) {
        let start = (0.0, "nothing");
        self.steps.iter().fold(start, |furthest, (distance, name)| {
            if is_beyond(*distance, furthest.0) {
                (*distance, name)
            } else {
                furthest
            }
        })
    }
}

/// Gradients that are nothing but rounding, such as that of a bias in front of a batch norm, are smaller.
const LEAST: f64 = 1e-3;

/// How often a step may be begun.
const ATTEMPTS: u64 = 3;

/// Trains `problem` for some steps on the CPU with the portable kernels, and beside it on `device` with `backend`, which begins
/// every step from the CPU's state: training is chaotic where a ReLU's input is nearly 0, and a difference of rounding would be
/// one of percents two steps on.
///
/// In a step where that happens one element of one layer's gradient comes or goes. A step whose furthest tensor is beyond `near` is
/// therefore begun again with other images, twice at most, and the nearest attempt counts: what a kernel does wrong shows in all.
///
/// # Errors
/// When a step fails on either.
pub fn compare(
    problem: &Problem,
    device: &Device,
    backend: &Backend,
    steps: u64,
    near: f64,
) -> Result<Agreement> {
    in_lockstep(problem, problem.on(device, backend)?, steps, near)
}

/// The same of the CPU and itself, summed otherwise: what rounding makes of a step. In f32 with direct sums in place of Winograd's
/// transform, and from bf16 with f32.
///
/// # Errors
/// When a step fails.
pub fn compare_roundings(problem: &Problem, steps: u64) -> Result<Agreement> {
    let exact = Problem {
        precision: Precision::F32,
        ..*problem
    };
    let mut other = exact.on(&Device::Cpu, &Backend::Portable)?;
    other.encoder = other.encoder.with_winograd(false);
    in_lockstep(problem, other, steps, f64::INFINITY)
}

fn in_lockstep(problem: &Problem, mut other: State, steps: u64, near: f64) -> Result<Agreement> {
    let mut cpu = problem.on(&Device::Cpu, &Backend::Portable)?;
    let mut agreement = Agreement::default();
    let mut state = cpu.tensors()?;
    for step in 0..steps {
        let mut nearest: Option<(f64, String)> = None;
        let mut next = HashMap::new();
        for attempt in 0..ATTEMPTS {
            cpu.follow(&state)?;
            other.follow(&state)?;
            let views = cpu.views(step + attempt * steps);
            let (a, b) = (cpu.step(step, &views)?, other.step(step, &views)?);
            ensure!(
                b.is_finite(),
                "the loss of step {step} is {b} where the CPU has {a}"
            );
            agreement.loss = agreement.loss.max((a - b).abs() / a.abs().max(1.0));
            next = cpu.tensors()?;
            let found = furthest_tensor((&cpu, &next), &other)?;
            let distance = found.0;
            // What is not a number is no nearer than anything.
            if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
                nearest = Some(found);
            }
            if !is_beyond(distance, near) {
                break;
            }
        }
        agreement.steps.extend(nearest);
        state = next;
    }
    Ok(agreement)
}

/// Among gradients and state. The CPU's comes with its tensors.
fn furthest_tensor(
    (cpu, state): (&State, &HashMap<String, Tensor>),
    other: &State,
) -> Result<(f64, String)> {
    let mut furthest = (0.0, String::new());
    let mut look = |name: String, a: &Tensor, b: &Tensor| -> Result<()> {
        let distance = distance(a, b, LEAST)?;
        if is_beyond(distance, furthest.0) {
            furthest = (distance, name);
        }
        Ok(())
    };
    let pairs = cpu.encoder.parameters().parameters().iter();
    for (a, b) in pairs.zip(other.encoder.parameters().parameters()) {
        let missing = || format!("no gradient of {}", a.name());
        let first = cpu.gradients.get(a).with_context(missing)?;
        let second = other.gradients.get(b).with_context(missing)?;
        look(format!("gradient of {}", a.name()), first, second)?;
    }
    let found = other.tensors()?;
    for (name, value) in state {
        let other = found
            .get(name)
            .with_context(|| format!("{name} is missing"))?;
        if value.dtype() == DType::F32 {
            look(name.clone(), value, other)?;
        } else {
            // Cursors and counts.
            ensure!(
                value.to_string() == other.to_string(),
                "{name}: {value} and {other}"
            );
        }
    }
    Ok(furthest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_with_a_nan_is_beyond_any_bound() {
        let agreement = Agreement {
            loss: 0.0,
            steps: vec![(0.1, "a".into()), (f64::NAN, "b".into()), (0.2, "c".into())],
        };
        assert_eq!(agreement.steps_beyond(0.15), 2);
        assert_eq!(agreement.steps_beyond(1e9), 1);
    }

    #[test]
    fn the_furthest_of_all_steps_is_named() {
        let agreement = Agreement {
            loss: 0.0,
            steps: vec![(0.1, "a".into()), (0.3, "b".into()), (0.2, "c".into())],
        };
        assert_eq!(agreement.furthest(), (0.3, "b"));
        assert_eq!(Agreement::default().furthest(), (0.0, "nothing"));
    }
}
