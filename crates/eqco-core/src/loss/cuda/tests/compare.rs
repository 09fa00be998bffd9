//! Random problems, and how near two outcomes are.

use candle_core::{DType, Device, Result, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::super::PendingLoss;
use super::super::memory::Memory;
use super::guard::Guard;
use crate::cuda::Queue;
use crate::{
    Alpha, ContrastiveLoss, LossConfig, LossError, LossOutput, Negatives, WantedGradients,
};

/// How far the emulated kernels may be from the CPU's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Of loss, statistics and temperature gradient, absolute: similarities up to 1, over a temperature of 0.1 or more.
    pub numbers: f64,
    /// Of gradients, relative to the largest one of the tensor.
    pub gradients: f64,
}

/// f32 on both sides, summed in other orders: similarities are off by some 2^-24 each, 1 / temperature multiplies that by up to
/// 10 before it is exponentiated, and gradients of few rows are differences of larger numbers.
pub(super) const F32: Bounds = Bounds {
    numbers: 4e-6,
    gradients: 5e-6,
};

/// bf16 inputs are the same on both sides. Weights are rounded to 8 bits before they multiply keys (2^-9 = 0.002 of each), and
/// gradients at last (0.002 on either side); the bound is twice the sum, for gradients that are differences. The temperature's
/// gradient, of which the weights alone are rounded, multiplies theirs by logits of about 1.
pub(super) const BF16: Bounds = Bounds {
    numbers: 4e-3,
    gradients: 1.2e-2,
};

/// The emulator, or `None` and a line that says so in a build without it.
pub(super) fn emulator() -> Option<Queue> {
    let queue = Queue::emulated();
    if let Err(error) = &queue {
        eprintln!("NOT RUN: {error}");
    }
    queue.ok()
}

pub(super) fn loss(temperature: f64, alpha: Alpha) -> ContrastiveLoss {
    ContrastiveLoss::new(LossConfig { temperature, alpha }).expect("valid settings")
}

/// Rows of length 1 in random directions, rounded to `dtype`.
pub(super) fn unit_rows(seed: u64, rows: usize, dim: usize, dtype: DType) -> Result<Tensor> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..rows * dim)
        .map(|_| (random.next_u32() as f32 / u32::MAX as f32) - 0.5)
        .collect();
    let rows = Tensor::from_vec(values, (rows, dim), &Device::Cpu)?;
    let lengths = rows.sqr()?.sum_keepdim(1)?.sqrt()?;
    rows.broadcast_div(&lengths)?.to_dtype(dtype)
}

/// Evaluates twice in poisoned memory between canaries; both must be equal to the bit.
pub(super) fn evaluate_guarded(
    evaluate: impl Fn(&Memory) -> std::result::Result<PendingLoss, LossError>,
) -> Result<LossOutput> {
    let once = || -> Result<LossOutput> {
        let mut memory = Memory::on(&Device::Cpu);
        memory.guard = Some(Guard::default());
        let output = evaluate(&memory)?.wait()?;
        let handed_out = memory.guard.expect("set above").check()?;
        assert!(handed_out > 0, "kernels write to guarded memory");
        Ok(output)
    };
    let (first, second) = (once()?, once()?);
    assert_eq!(first.statistics, second.statistics);
    assert_eq!(first.temperature_gradient, second.temperature_gradient);
    for (name, a, b) in gradients(&first, &second) {
        assert_eq!(values(&a)?, values(&b)?, "{name} differs between two runs");
    }
    Ok(first)
}

/// Runs a problem both ways and compares everything.
pub(super) fn check(
    case: &str,
    loss: &ContrastiveLoss,
    (queries, keys): (&Tensor, &Tensor),
    negatives: Negatives<'_>,
    bounds: Bounds,
) -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let wanted = WantedGradients::ALL;
    let expected = loss.evaluate(queries, keys, negatives, wanted)?;
    let got = evaluate_guarded(|memory| {
        loss.evaluate_in((&queue, memory), queries, keys, negatives, wanted)
    })?;
    assert_near(case, &got, &expected, bounds)
}

pub(super) fn assert_near(
    case: &str,
    got: &LossOutput,
    expected: &LossOutput,
    bounds: Bounds,
) -> Result<()> {
    // Neither depends on weights that are rounded: the bound of f32 whatever the inputs.
    let (ours, theirs) = (&got.statistics, &expected.statistics);
    let exact = [
        ("loss", got.loss, expected.loss),
        ("top-1", ours.contrast_top1, theirs.contrast_top1),
        (
            "positive",
            ours.positive_similarity,
            theirs.positive_similarity,
        ),
        (
            "negative",
            ours.negative_similarity,
            theirs.negative_similarity,
        ),
        ("g", ours.gradient_scale, theirs.gradient_scale),
        (
            "deviation of g",
            ours.gradient_scale_deviation,
            theirs.gradient_scale_deviation,
        ),
        (
            "guaranteed bound",
            ours.guaranteed_bound,
            theirs.guaranteed_bound,
        ),
        ("paper's bound", ours.paper_bound, theirs.paper_bound),
    ];
    for (name, a, b) in exact {
        assert!(
            (a - b).abs() <= F32.numbers,
            "{case}: {name} {a}, expected {b}"
        );
    }
    let (a, b) = (got.temperature_gradient, expected.temperature_gradient);
    assert!(
        (a - b).abs() <= bounds.numbers * (1.0 + b.abs()),
        "{case}: temperature gradient {a}, expected {b}"
    );
    assert_eq!(
        got.keys_gradient.is_some(),
        expected.keys_gradient.is_some()
    );
    assert_eq!(
        got.negatives_gradient.is_some(),
        expected.negatives_gradient.is_some()
    );
    for (name, a, b) in gradients(got, expected) {
        assert_eq!(
            (a.dims(), a.dtype()),
            (b.dims(), b.dtype()),
            "{case}: {name}"
        );
        let (a, b) = (values(&a)?, values(&b)?);
        let largest = b
            .iter()
            .fold(0f64, |largest, value| largest.max(value.abs()));
        for (place, (a, b)) in a.iter().zip(&b).enumerate() {
            assert!(
                (a - b).abs() <= bounds.gradients * largest,
                "{case}: {name}[{place}] {a}, expected {b} of at most {largest}"
            );
        }
    }
    Ok(())
}

fn gradients(a: &LossOutput, b: &LossOutput) -> Vec<(&'static str, Tensor, Tensor)> {
    let of = |output: &LossOutput| {
        [
            Some(output.queries_gradient.clone()),
            output.keys_gradient.clone(),
            output.negatives_gradient.clone(),
        ]
    };
    ["queries' gradient", "keys' gradient", "negatives' gradient"]
        .into_iter()
        .zip(of(a).into_iter().zip(of(b)))
        .filter_map(|(name, (a, b))| Some((name, a?, b?)))
        .collect()
}

pub(super) fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}
