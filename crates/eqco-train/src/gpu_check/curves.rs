//! Curves of training, each side running freely from the same start.
//!
//! Training is chaotic: a difference in the last digit grows from step to step, so that two correct runs have no losses in
//! common after some time. What they have in common are means over some steps. How far rounding can carry these is measured beside
//! them: the same steps on the CPU with activations in f32 and in bf16, whose roundings are 2^16 times as coarse. Where training is
//! chaotic enough a difference in the last digit ends up as far, so that a run is taken to be so far from an exact one in either format:
//! two of them are twice as far from each other at most.

use anyhow::{Result, ensure};
use candle_core::Device;
use eqco_models::backend::Backend;
use eqco_models::method::MethodName;
use eqco_models::optim::{OptimizerConfig, SgdConfig};
use eqco_models::{Architecture, EncoderConfig, Precision};

use super::Problem;
use super::distance::larger;
use super::random::Draw;

/// Steps of which losses are averaged.
pub const WINDOW: usize = 10;
/// Batches of images, each of which comes again and again.
const BATCHES: u64 = 4;
/// Low, so that rounding carries a curve less far than a wrong update does: measured over 50 steps on the CPU, from 4.6 to 1.7 nats,
/// bf16 moves it by 0.03 and a momentum of 0.85 in place of 0.9 by 0.16. At 0.01 both were 0.2.
const LEARNING_RATE: f64 = 5e-4;
/// Of the distance between the CPU's own curves.
const BOTH_ROUND: f64 = 2.0;

/// What is trained: a network that takes seconds on the CPU.
pub fn problem() -> Problem {
    Problem {
        encoder: EncoderConfig::cifar(Architecture::Resnet18, 8),
        method: MethodName::Simclr,
        optimizer: OptimizerConfig::Sgd(SgdConfig::default()),
        precision: Precision::F32,
        image_size: 16,
        batch_size: 64,
        batch_norm_group: 0,
    }
}

/// How far the curve of a device is from the CPU's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurveDistance {
    /// Format of activations.
    pub precision: Precision,
    /// The largest difference of means over [`WINDOW`] steps, in nats.
    pub distance: f64,
    /// How far it may be.
    pub bound: f64,
    /// The CPU's loss over the first and the last window, in nats.
    pub first_and_last: [f64; 2],
}

/// Trains `problem`, whose precision does not count, for `steps` steps on the CPU and on `device`, in both formats.
///
/// # Errors
/// When a step fails, a loss is not a number, or there are fewer steps than a window has.
pub fn compare_curves(
    problem: &Problem,
    device: &Device,
    backend: &Backend,
    steps: u64,
) -> Result<[CurveDistance; 2]> {
    let formats = [Precision::F32, Precision::Bf16];
    let problems = formats.map(|precision| Problem {
        precision,
        ..*problem
    });
    let on_cpu = |problem| losses(problem, &Device::Cpu, &Backend::Portable, steps);
    let expected = [on_cpu(&problems[0])?, on_cpu(&problems[1])?];
    let rounding = furthest_window(&expected[0], &expected[1])?;
    let compare = |index: usize, bound| -> Result<CurveDistance> {
        let found = losses(&problems[index], device, backend, steps)?;
        let means = windows(&expected[index])?;
        Ok(CurveDistance {
            precision: formats[index],
            distance: furthest_window(&expected[index], &found)?,
            bound,
            first_and_last: [means[0], means[means.len() - 1]],
        })
    };
    let bound = BOTH_ROUND * rounding;
    Ok([compare(0, bound)?, compare(1, bound)?])
}

/// The loss of every step.
///
/// # Errors
/// When a step fails, or a loss is not a number.
pub fn losses(
    problem: &Problem,
    device: &Device,
    backend: &Backend,
    steps: u64,
) -> Result<Vec<f64>> {
    let mut state = problem.on(device, backend)?;
    state.learning_rate = LEARNING_RATE;
    let step = |step| -> Result<f64> {
        let views = views(problem, step % BATCHES);
        let loss = state.step(step, &views)?;
        ensure!(loss.is_finite(), "the loss of step {step} is {loss}");
        Ok(loss)
    };
    (0..steps).map(step).collect()
}

/// Both views of a batch: patches of random colours, of which every view has its own noise. Images that look alike would leave batch
/// norms with differences of rounding.
fn views(problem: &Problem, batch: u64) -> [Vec<u8>; 2] {
    const PATCHES: usize = 4;
    const NOISE: u8 = 32;
    let (images, size) = (problem.batch_size, problem.image_size);
    let colours = Draw::new(batch, "colours").bytes(images * PATCHES * PATCHES * 3);
    ["query view", "key view"].map(|view| {
        let mut pixels = Draw::new(batch, view).bytes(images * size * size * 3);
        for (place, value) in pixels.iter_mut().enumerate() {
            let (pixel, channel) = (place / 3, place % 3);
            let [row, column] = [pixel / size % size, pixel % size].map(|at| at * PATCHES / size);
            let patch = (pixel / (size * size) * PATCHES + row) * PATCHES + column;
            *value = (colours[patch * 3 + channel] / 2).saturating_add(*value % NOISE);
        }
        pixels
    })
}

/// The largest difference of means over windows of two curves of one length, in nats.
///
/// # Errors
/// When the curves have other lengths, or fewer steps than a window.
pub fn furthest_window(a: &[f64], b: &[f64]) -> Result<f64> {
    ensure!(
        a.len() == b.len(),
        "curves of {} and {} steps",
        a.len(),
        b.len()
    );
    let (a, b) = (windows(a)?, windows(b)?);
    let differences = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
    Ok(differences.fold(0.0, larger))
}

fn windows(losses: &[f64]) -> Result<Vec<f64>> {
    ensure!(
        losses.len() >= WINDOW,
        "expected at least {WINDOW} steps, found {}",
        losses.len()
    );
    let windows = losses.chunks_exact(WINDOW);
    let mean = |window: &[f64]| window.iter().sum::<f64>() / WINDOW as f64;
    Ok(windows.map(mean).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_compared_by_the_means_of_windows() -> Result<()> {
        let level = vec![2.0; 25];
        let mut other = level.clone();
        // Two opposite outliers in one window cancel, one in the second does not; the last five steps are no window.
        (other[1], other[2], other[13], other[24]) = (1.0, 3.0, 2.5, 9.0);
        assert!((furthest_window(&level, &other)? - 0.05).abs() < 1e-12);
        other[3] = f64::NAN;
        assert!(furthest_window(&level, &other)?.is_nan());
        Ok(())
    }

    #[test]
    fn curves_that_cannot_be_compared_say_why() {
        let error = |a: usize, b: usize| {
            let curves = [a, b].map(|steps| vec![1.0; steps]);
            let result = furthest_window(&curves[0], &curves[1]);
            result.unwrap_err().to_string()
        };
        assert!(error(20, 30).contains("20 and 30"));
        assert!(error(9, 9).contains("at least 10 steps, found 9"));
    }
}
