//! One part, from its beginning to its end or to the error that ends it.

use anyhow::Result;
use eqco_models::method::MethodName;
use eqco_models::optim::{LarsConfig, OptimizerConfig, SgdConfig};
use eqco_models::{Architecture, EncoderConfig, Precision, Stem};

use super::curves::{CurveDistance, compare_curves};
use super::kernels::{Kernel, Place};
use super::outcome::{Check, Outcome, finite};
use super::part::Part;
use super::pytorch::Interpreter;
use super::speed::{self, Scale};
use super::workload::{self, Settings};
use super::{Agreement, Problem, compare, compare_roundings};

/// In f32 a tensor is at most so far from the CPU's, of its largest value: sums are taken in another order, and batch norms of
/// few values amplify what comes out.
const IN_F32: f64 = 2e-4;
/// Fifty layers have so many ReLUs that some input is near 0 in every step, whatever the images, and bf16 is off by percents behind them. There tensors, and
/// losses in bf16, may be so many times as far as the CPU's are from its own with other roundings (ResNet-50: 0.16, and 0.03).
const OF_ROUNDING: f64 = 3.0;
/// Losses in bf16, which has three digits; gradients of single elements are not compared.
const LOSS_IN_BF16: f64 = 2e-2;
const LOSS_IN_F32: f64 = 1e-4;
/// Steps of a comparison in lockstep.
const STEPS: u64 = 6;
/// Steps of a curve.
const CURVE_STEPS: u64 = 50;
/// Values of a tensor of the kernels' checks: several bands and blocks, no time for the CPU, and sums short enough for f32.
const MOST_VALUES: usize = 100_000;

/// How parts are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of shapes and values of the kernels' checks.
    pub seed: u64,
    /// Steps that are timed in one turn.
    pub steps: usize,
    /// `None` to leave PyTorch out.
    pub pytorch: Option<Interpreter>,
}

/// Runs a part. `progress` hears what comes next, and `keep` all that was found so far, should the process not live to the end.
pub fn run_part(
    part: Part,
    place: Place<'_>,
    options: &Options,
    progress: &dyn Fn(&str),
    keep: &dyn Fn(&Outcome),
) -> Outcome {
    let finished = match part {
        Part::Kernel(kernel) => {
            let size = (options.seed, MOST_VALUES);
            return check_kernel(kernel, size, place, progress, keep);
        }
        Part::Steps(method) => return check_steps(method, place, progress, keep),
        Part::Speed => return speed::measure(place, Scale::Full, progress, keep),
        Part::Curves => {
            progress("the CPU's, then the device's");
            check_curves(place)
        }
        Part::Workload(workload) => {
            let settings = Settings {
                scale: Scale::Full,
                steps: options.steps,
                pytorch: options.pytorch.as_ref(),
            };
            workload::measure(workload, place, settings, progress, keep)
        }
    };
    finished.unwrap_or_else(|error| Outcome::broken(format!("{error:#}")))
}

/// All checks of a kernel, on shapes that follow from a seed and have about so many values at most.
pub fn check_kernel(
    kernel: Kernel,
    (seed, most): (u64, usize),
    place: Place<'_>,
    progress: &dyn Fn(&str),
    keep: &dyn Fn(&Outcome),
) -> Outcome {
    let mut outcome = Outcome::default();
    let checks = kernel.checks(seed, most);
    let count = checks.len();
    for (done, check) in checks.into_iter().enumerate() {
        progress(&check.name);
        let result = check.run(place);
        outcome.checks.push(match &result {
            Ok(comparison) => Check::of(check.name, comparison),
            Err(error) => Check::failed(check.name, format!("{error:#}")),
        });
        if result.is_err()
            && let Some(error) = lost(place)
        {
            let left = count - done - 1;
            outcome.error = Some(format!("{error}; {left} checks not run"));
            break;
        }
        keep(&outcome);
    }
    outcome
}

/// Why the device answers nothing any more, if it does not: after a fault of a kernel all calls fail.
fn lost(place: Place<'_>) -> Option<String> {
    let answer = place.device.synchronize();
    let error = answer.err()?;
    Some(format!("the device is lost to this process: {error}"))
}

fn check_steps(
    method: MethodName,
    place: Place<'_>,
    progress: &dyn Fn(&str),
    keep: &dyn Fn(&Outcome),
) -> Outcome {
    let mut outcome = Outcome::default();
    for precision in [Precision::F32, Precision::Bf16] {
        let problem = problem(method, precision);
        let name = format!(
            "{} with {:?} of width {}, {} pixels, {precision:?}",
            method.title(),
            problem.encoder.architecture,
            problem.encoder.width,
            problem.image_size
        );
        progress(&name);
        outcome.checks.push(match steps_of(&problem, place) {
            Ok((agreement, rounding)) => of_steps(name, precision, &agreement, rounding.as_ref()),
            Err(error) => Check::failed(name, format!("{error:#}")),
        });
        keep(&outcome);
    }
    outcome.error = lost(place);
    outcome
}

/// The device's agreement with the CPU, and where that is not near the CPU's with itself.
fn steps_of(problem: &Problem, place: Place<'_>) -> Result<(Agreement, Option<Agreement>)> {
    let near = match problem.precision {
        Precision::F32 => IN_F32,
        // Tensors in bf16 are not compared.
        Precision::Bf16 => f64::INFINITY,
    };
    let agreement = compare(problem, place.device, place.backend, STEPS, near)?;
    let rounding = match is_near(problem.precision, &agreement) {
        true => None,
        false => Some(compare_roundings(problem, STEPS)?),
    };
    Ok((agreement, rounding))
}

fn is_near(precision: Precision, agreement: &Agreement) -> bool {
    match precision {
        Precision::F32 => agreement.loss <= LOSS_IN_F32 && agreement.steps_beyond(IN_F32) == 0,
        Precision::Bf16 => agreement.loss <= LOSS_IN_BF16,
    }
}

/// Whether it is no further than other roundings take the CPU from itself. A loss in f32 has its bound all the same.
fn is_rounding(precision: Precision, agreement: &Agreement, rounding: &Agreement) -> bool {
    match precision {
        Precision::F32 => {
            agreement.loss <= LOSS_IN_F32
                && agreement.furthest().0 <= OF_ROUNDING * rounding.furthest().0
        }
        Precision::Bf16 => agreement.loss <= OF_ROUNDING * rounding.loss,
    }
}

fn of_steps(
    name: String,
    precision: Precision,
    agreement: &Agreement,
    rounding: Option<&Agreement>,
) -> Check {
    let (distance, tensor) = agreement.furthest();
    let beyond = agreement.steps_beyond(IN_F32);
    let of_cpu = rounding.map_or_else(String::new, |rounding| {
        let (loss, furthest) = (rounding.loss, rounding.furthest().0);
        format!("; the CPU from itself: loss {loss:.1e}, furthest {furthest:.1e}")
    });
    let of_rounding = |rounding| is_rounding(precision, agreement, rounding);
    Check {
        name,
        passed: is_near(precision, agreement) || rounding.is_some_and(of_rounding),
        distance: finite(agreement.loss),
        bound: match precision {
            Precision::F32 => LOSS_IN_F32,
            Precision::Bf16 => LOSS_IN_BF16,
        },
        detail: format!(
            "loss; {beyond} of {STEPS} steps beyond {IN_F32:.0e}, furthest {distance:.1e} ({tensor}){of_cpu}"
        ),
    }
}

/// Every method with an optimiser, odd shapes. Not AdamW: it divides by the gradient's own size, so that where that is nothing
/// rounding decides on a whole step.
fn problem(method: MethodName, precision: Precision) -> Problem {
    let nesterov = SgdConfig {
        nesterov: true,
        ..SgdConfig::default()
    };
    let (optimizer, architecture, width, stem, image_size) = match method {
        MethodName::Simo => (
            OptimizerConfig::Sgd(SgdConfig::default()),
            Architecture::Resnet18,
            8,
            Stem::Imagenet,
            33,
        ),
        MethodName::MocoV2 => (
            OptimizerConfig::Sgd(nesterov),
            Architecture::Resnet18,
            12,
            Stem::Cifar,
            17,
        ),
        MethodName::Simclr => (
            OptimizerConfig::Lars(LarsConfig::default()),
            Architecture::Resnet50,
            16,
            Stem::Imagenet,
            65,
        ),
    };
    Problem {
        encoder: EncoderConfig {
            architecture,
            width,
            stem,
            zero_init_residual: false,
        },
        method,
        optimizer,
        precision,
        image_size,
        batch_size: 16,
        batch_norm_group: 8,
    }
}

fn check_curves(place: Place<'_>) -> Result<Outcome> {
    let problem = super::curves::problem();
    let curves = compare_curves(&problem, place.device, place.backend, CURVE_STEPS)?;
    Ok(Outcome {
        checks: curves.into_iter().map(of_curve).collect(),
        ..Outcome::default()
    })
}

fn of_curve(curve: CurveDistance) -> Check {
    let [first, last] = curve.first_and_last;
    Check {
        name: format!("{CURVE_STEPS} steps, {:?}", curve.precision),
        passed: curve.distance <= curve.bound,
        distance: finite(curve.distance),
        bound: curve.bound,
        detail: format!("nats between means; the CPU's go from {first:.3} to {last:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(loss: f64, distances: &[f64]) -> Agreement {
        let steps = distances.iter().map(|distance| (*distance, "x".to_owned()));
        Agreement {
            loss,
            steps: steps.collect(),
        }
    }

    #[test]
    fn steps_in_f32_are_as_near_as_sums_allow_or_as_the_cpu_is_to_itself() {
        let passed = |distances: &[f64], rounding: Option<f64>| {
            let rounding = rounding.map(|furthest| agreement(0.0, &[furthest]));
            let found = agreement(1e-6, distances);
            of_steps(String::new(), Precision::F32, &found, rounding.as_ref()).passed
        };
        assert!(passed(&[1e-5, IN_F32], None));
        assert!(!passed(&[1e-5, 1.01 * IN_F32], None));
        // ReLUs turned over, on the CPU as well.
        assert!(passed(&[0.3, 0.48], Some(0.16)));
        assert!(!passed(&[0.3, 0.49], Some(0.16)));
        assert!(!passed(&[1e-3, 1e-3], Some(1e-5)));
        assert!(!passed(&[f64::NAN, 0.0], Some(0.16)));
    }

    #[test]
    fn a_loss_in_f32_has_its_bound_and_one_in_bf16_that_of_rounding() {
        let passed = |precision, loss: f64, of_cpu: f64| {
            let rounding = agreement(of_cpu, &[1.0]);
            let found = agreement(loss, &[1e-5]);
            of_steps(String::new(), precision, &found, Some(&rounding)).passed
        };
        assert!(passed(Precision::F32, LOSS_IN_F32, 1.0));
        assert!(!passed(Precision::F32, 1.01 * LOSS_IN_F32, 1.0));
        assert!(passed(Precision::Bf16, LOSS_IN_BF16, 0.0));
        assert!(passed(Precision::Bf16, 0.09, 0.03));
        assert!(!passed(Precision::Bf16, 0.09, 0.029));
        assert!(!passed(Precision::Bf16, f64::NAN, 1.0));
    }
}
