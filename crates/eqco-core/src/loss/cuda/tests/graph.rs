//! The loss as a node of candle's graph, computed by the kernels in the emulator.

use candle_core::{DType, Result, Tensor, Var};

use super::compare::{F32, emulator, loss, unit_rows, values};
use crate::{
    Alpha, DrawKind, LossConfig, NegativeDraw, Negatives, WantedGradients, nt_xent_forward,
    nt_xent_forward_on,
};

fn variable(seed: u64, rows: usize) -> Result<Var> {
    Var::from_tensor(&unit_rows(seed, rows, 24, DType::F32)?)
}

/// Same tensors have a gradient, and these are equal but for rounding.
fn assert_same_gradients(got: &Tensor, expected: &Tensor, variables: &[&Var]) -> Result<()> {
    let (a, b) = (
        got.to_scalar::<f32>()? as f64,
        expected.to_scalar::<f32>()? as f64,
    );
    assert!((a - b).abs() <= F32.numbers, "loss {a}, expected {b}");
    // What comes from above is no 1.
    let (got, expected) = ((got * 3.0)?.backward()?, (expected * 3.0)?.backward()?);
    for (place, variable) in variables.iter().enumerate() {
        let (a, b) = (got.get(variable), expected.get(variable));
        assert_eq!(a.is_some(), b.is_some(), "variable {place}");
        let (Some(a), Some(b)) = (a, b) else { continue };
        let (a, b) = (values(a)?, values(b)?);
        let largest = b.iter().fold(0f64, |most, value| most.max(value.abs()));
        assert!(largest > 0.0, "variable {place}");
        for (a, b) in a.iter().zip(&b) {
            let error = (a - b).abs();
            assert!(
                error <= F32.gradients * largest,
                "variable {place}: {a} {b}"
            );
        }
    }
    Ok(())
}

#[test]
fn candle_follows_the_kernels_loss_as_the_cpus() -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let (queries, keys) = (variable(1, 10)?, variable(2, 10)?);
    let negatives = variable(3, 70)?;
    let draw = NegativeDraw::sample(DrawKind::PerQuery, 10, 4, 0, 0)?;
    let larger = NegativeDraw::sample(DrawKind::PerQuery, 70, 4, 0, 0)?;
    let loss = loss(0.2, Alpha::Equivalent(256.0));
    for source in [
        Negatives::Shared(&negatives),
        Negatives::InBatch(&draw),
        Negatives::InLargerBatch {
            draw: &larger,
            batch_keys: &negatives,
            first: 60,
        },
    ] {
        let got = loss.forward_on(&queue, &queries, &keys, source)?;
        assert_eq!((got.dims(), got.dtype()), (&[][..], DType::F32));
        let expected = loss.forward(&queries, &keys, source)?;
        assert_same_gradients(&got, &expected, &[&queries, &keys, &negatives])?;
    }
    Ok(())
}

#[test]
fn what_is_scaled_is_what_the_kernels_give() -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let (queries, keys) = (variable(4, 6)?, unit_rows(5, 6, 24, DType::F32)?);
    let draw = NegativeDraw::all_others(6)?;
    let loss = loss(0.1, Alpha::Infonce);
    let (source, wanted) = (Negatives::InBatch(&draw), WantedGradients::QUERIES);
    let out = loss.evaluate_on(&queue, &queries, &keys, source, wanted)?;
    let value = loss.forward_on(&queue, &queries, &keys, source)?;
    assert_eq!(value.to_scalar::<f32>()?, out.loss as f32);
    let gradients = (value * 0.5)?.backward()?;
    let got = gradients.get(&queries).map(values).transpose()?;
    assert_eq!(got, Some(values(&(out.queries_gradient * 0.5)?)?));
    assert!(gradients.get(&keys).is_none(), "keys are constants");
    Ok(())
}

#[test]
fn both_views_of_simclr_have_a_gradient() -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let (first, second) = (variable(6, 9)?, variable(7, 9)?);
    let config = LossConfig {
        temperature: 0.1,
        alpha: Alpha::Equivalent(64.0),
    };
    let got = nt_xent_forward_on(&queue, &config, &first, &second)?;
    let expected = nt_xent_forward(&config, &first, &second)?;
    assert_same_gradients(&got, &expected, &[&first, &second])
}
