//! Against the loss in float64.

use candle_core::{DType, Result, Tensor};

use super::compare::{BF16, Bounds, F32, emulator, evaluate_guarded, loss, unit_rows, values};
use crate::reference::query_loss;
use crate::{Alpha, LossConfig, Negatives, WantedGradients};

/// Means over the queries, in float64: loss, derivative with respect to the temperature, and the gradients of queries, keys
/// and negatives.
fn expected(
    config: &LossConfig,
    [queries, keys, negatives]: [&Tensor; 3],
) -> Result<(f64, f64, [Vec<f64>; 3])> {
    let dim = queries.dim(1)?;
    let [queries, keys, negatives] = [values(queries)?, values(keys)?, values(negatives)?];
    let share = dim as f64 / queries.len() as f64;
    let (mut loss, mut of_temperature) = (0.0, 0.0);
    let mut gradients = [Vec::new(), Vec::new(), vec![0.0; negatives.len()]];
    for (query, key) in queries.chunks_exact(dim).zip(keys.chunks_exact(dim)) {
        let one = query_loss(query, key, &negatives, config)?;
        loss += share * one.loss;
        of_temperature += share * one.temperature_gradient;
        gradients[0].extend(one.query_gradient.iter().map(|g| share * g));
        gradients[1].extend(one.positive_gradient.iter().map(|g| share * g));
        for (sum, g) in gradients[2].iter_mut().zip(&one.negatives_gradient) {
            *sum += share * g;
        }
    }
    Ok((loss, of_temperature, gradients))
}

fn check(dtype: DType, dim: usize, bounds: Bounds) -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let (queries, keys) = (unit_rows(1, 5, dim, dtype)?, unit_rows(2, 5, dim, dtype)?);
    let negatives = unit_rows(3, 67, dim, dtype)?;
    let eqco = loss(0.1, Alpha::Equivalent(1024.0));
    let (loss, of_temperature, gradients) = expected(eqco.config(), [&queries, &keys, &negatives])?;
    let all = WantedGradients::ALL;
    let shared = Negatives::Shared(&negatives);
    let got = evaluate_guarded(|memory| {
        eqco.evaluate_in((&queue, memory), &queries, &keys, shared, all)
    })?;
    assert!((got.loss - loss).abs() < F32.numbers);
    assert!(
        (got.temperature_gradient - of_temperature).abs()
            < bounds.numbers * (1.0 + of_temperature.abs())
    );
    let ours = [
        Some(got.queries_gradient),
        got.keys_gradient,
        got.negatives_gradient,
    ];
    for (ours, expected) in ours.into_iter().zip(&gradients) {
        let ours = values(&ours.expect("all are wanted"))?;
        let largest = expected
            .iter()
            .fold(0f64, |largest, value| largest.max(value.abs()));
        for (ours, expected) in ours.iter().zip(expected) {
            assert!(
                (ours - expected).abs() <= bounds.gradients * largest,
                "{ours}, expected {expected}"
            );
        }
    }
    Ok(())
}

#[test]
fn f32_is_as_near_to_float64_as_to_the_cpu() -> Result<()> {
    check(DType::F32, 17, F32)?;
    check(DType::F32, 128, F32)
}

#[test]
fn bf16_is_as_near_to_float64_as_to_the_cpu() -> Result<()> {
    check(DType::BF16, 17, BF16)?;
    check(DType::BF16, 128, BF16)
}
