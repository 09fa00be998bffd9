//! Gradients against finite differences, and candle's graph against direct evaluation.

use candle_core::{DType, Result, Tensor, Var};
use eqco_core::reference::query_loss;
use eqco_core::{
    Alpha, ContrastiveLoss, DrawKind, LossConfig, LossOutput, NegativeDraw, Negatives,
    WantedGradients,
};

use crate::batches::{assert_close, config, unit_tensor, values};
use crate::vector_file::hashed_unit;

const DIM: usize = 12;
const ALPHAS: [Alpha; 4] = [
    Alpha::Infonce,
    Alpha::Equivalent(256.0),
    Alpha::Equivalent(2.0),
    Alpha::Decoupled,
];

/// Central difference of the fused loss along `direction` added to one of three inputs.
fn slope(
    inputs: &[Tensor; 3],
    moved: usize,
    direction: &Tensor,
    evaluate: impl Fn(&[Tensor; 3]) -> Result<LossOutput>,
) -> Result<f64> {
    // The loss is summed in float64 from f32 logits of size 2: 1e-2 balances rounding (about 1e-7 /
    // 1e-2) against the cubic term (about 1e-4).
    let step = 1e-2;
    let at = |sign: f64| -> Result<f64> {
        let mut inputs = inputs.clone();
        inputs[moved] = (&inputs[moved] + (direction * (sign * step))?)?;
        Ok(evaluate(&inputs)?.loss)
    };
    Ok((at(1.0)? - at(-1.0)?) / (2.0 * step))
}

fn along(gradient: &Tensor, direction: &Tensor) -> Result<f64> {
    Ok(values(gradient)
        .iter()
        .zip(values(direction))
        .map(|(g, d)| g * d)
        .sum())
}

#[test]
fn shared_negatives_against_finite_differences() -> Result<()> {
    let inputs = [
        unit_tensor(30, 6, DIM),
        unit_tensor(31, 6, DIM),
        unit_tensor(32, 300, DIM),
    ];
    for alpha in ALPHAS {
        let loss = ContrastiveLoss::new(config(0.5, alpha))?;
        let evaluate = |t: &[Tensor; 3]| -> Result<LossOutput> {
            Ok(loss.evaluate(&t[0], &t[1], Negatives::Shared(&t[2]), WantedGradients::ALL)?)
        };
        let out = evaluate(&inputs)?;
        let gradients = [
            Some(out.queries_gradient),
            out.keys_gradient,
            out.negatives_gradient,
        ];
        for (moved, gradient) in gradients.into_iter().enumerate() {
            let rows = inputs[moved].dim(0)?;
            let direction = unit_tensor(33 + moved as u64, rows, DIM);
            let expected = slope(&inputs, moved, &direction, evaluate)?;
            let got = along(&gradient.expect("wanted"), &direction)?;
            assert!(
                (got - expected).abs() < 2e-4,
                "{alpha}, input {moved}: {got} {expected}"
            );
            assert!(
                expected.abs() > 1e-3,
                "a direction that can tell: {expected}"
            );
        }
    }
    Ok(())
}

#[test]
fn drawn_negatives_against_finite_differences() -> Result<()> {
    let draw = NegativeDraw::sample(DrawKind::PerQuery, 40, 5, 1, 2)?;
    let unused = unit_tensor(0, 1, 1);
    let inputs = [unit_tensor(36, 40, DIM), unit_tensor(37, 40, DIM), unused];
    for alpha in ALPHAS {
        let loss = ContrastiveLoss::new(config(0.5, alpha))?;
        let evaluate = |t: &[Tensor; 3]| -> Result<LossOutput> {
            Ok(loss.evaluate(
                &t[0],
                &t[1],
                Negatives::InBatch(&draw),
                WantedGradients::ALL,
            )?)
        };
        let out = evaluate(&inputs)?;
        assert!(out.negatives_gradient.is_none());
        let gradients = [out.queries_gradient, out.keys_gradient.expect("wanted")];
        for (moved, gradient) in gradients.into_iter().enumerate() {
            let direction = unit_tensor(38 + moved as u64, 40, DIM);
            let expected = slope(&inputs, moved, &direction, evaluate)?;
            let got = along(&gradient, &direction)?;
            assert!(
                (got - expected).abs() < 2e-4,
                "{alpha}, input {moved}: {got} {expected}"
            );
            assert!(
                expected.abs() > 1e-3,
                "a direction that can tell: {expected}"
            );
        }
    }
    Ok(())
}

#[test]
fn temperature_against_finite_differences() -> Result<()> {
    let (queries, keys) = (unit_tensor(40, 20, DIM), unit_tensor(41, 20, DIM));
    let draw = NegativeDraw::sample(DrawKind::SharedColumns, 20, 6, 1, 2)?;
    let negatives = unit_tensor(42, 50, DIM);
    for negatives in [Negatives::InBatch(&draw), Negatives::Shared(&negatives)] {
        for alpha in ALPHAS {
            let at = |temperature: f64| -> Result<LossOutput> {
                let loss = ContrastiveLoss::new(LossConfig { temperature, alpha })?;
                Ok(loss.evaluate(&queries, &keys, negatives, WantedGradients::QUERIES)?)
            };
            let expected = (at(0.302)?.loss - at(0.298)?.loss) / 0.004;
            let got = at(0.3)?.temperature_gradient;
            assert_close("temperature", &[got], &[expected], 1e-3);
        }
    }
    Ok(())
}

#[test]
fn the_reference_against_float64_finite_differences() {
    let rows = |table, count| (0..count).flat_map(move |r| hashed_unit(table, r, 8));
    let inputs: Vec<f64> = rows(43, 1).chain(rows(44, 1)).chain(rows(45, 5)).collect();
    for alpha in ALPHAS {
        let loss = |x: &[f64], temperature: f64| {
            query_loss(&x[..8], &x[8..16], &x[16..], &config(temperature, alpha)).expect("valid")
        };
        let out = loss(&inputs, 0.2);
        let gradient = [
            out.query_gradient,
            out.positive_gradient,
            out.negatives_gradient,
        ]
        .concat();
        let step = 1e-5;
        let slopes: Vec<f64> = (0..inputs.len())
            .map(|i| {
                let (mut up, mut down) = (inputs.clone(), inputs.clone());
                up[i] += step;
                down[i] -= step;
                (loss(&up, 0.2).loss - loss(&down, 0.2).loss) / (2.0 * step)
            })
            .collect();
        assert_close("inputs", &gradient, &slopes, 1e-7);
        let slope =
            (loss(&inputs, 0.2 + step).loss - loss(&inputs, 0.2 - step).loss) / (2.0 * step);
        assert_close("temperature", &[out.temperature_gradient], &[slope], 1e-7);
    }
}

#[test]
fn candles_graph_gives_the_evaluated_gradients_times_what_comes_from_above() -> Result<()> {
    let queries = Var::from_tensor(&unit_tensor(46, 10, DIM))?;
    let keys = Var::from_tensor(&unit_tensor(47, 10, DIM))?;
    let negatives = Var::from_tensor(&unit_tensor(48, 70, DIM))?;
    let draw = NegativeDraw::sample(DrawKind::PerQuery, 10, 4, 0, 0)?;
    let loss = ContrastiveLoss::new(config(0.2, Alpha::Equivalent(256.0)))?;
    for source in [Negatives::Shared(&negatives), Negatives::InBatch(&draw)] {
        let out = loss.evaluate(&queries, &keys, source, WantedGradients::ALL)?;
        let value = loss.forward(&queries, &keys, source)?;
        assert_eq!((value.dims(), value.dtype()), (&[][..], DType::F32));
        assert_eq!(value.to_scalar::<f32>()?, out.loss as f32);
        let gradients = (value * 3.0)?.backward()?;
        let pairs = [
            (&queries, Some(out.queries_gradient)),
            (&keys, out.keys_gradient),
            (&negatives, out.negatives_gradient),
        ];
        for (var, direct) in pairs {
            let direct = direct.map(|g| (g * 3.0).map(|g| values(&g))).transpose()?;
            assert_eq!(gradients.get(var).map(values), direct);
        }
    }
    Ok(())
}

#[test]
fn constants_receive_no_gradient() -> Result<()> {
    let queries = Var::from_tensor(&unit_tensor(49, 4, DIM))?;
    let (keys, queue) = (unit_tensor(50, 4, DIM), unit_tensor(51, 9, DIM));
    let loss = ContrastiveLoss::new(config(0.2, Alpha::Infonce))?;
    let value = loss.forward(&queries, &keys, Negatives::Shared(&queue))?;
    let gradients = value.backward()?;
    assert!(gradients.get(&queries).is_some());
    assert!(gradients.get(&keys).is_none() && gradients.get(&queue).is_none());
    Ok(())
}
