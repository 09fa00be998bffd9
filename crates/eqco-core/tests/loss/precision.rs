//! Low temperatures, bf16, and inputs that are not numbers.

use candle_core::{DType, Result, Tensor, Var};
use eqco_core::{
    Alpha, ContrastiveLoss, DrawKind, LossOutput, NegativeDraw, Negatives, WantedGradients, nt_xent,
};

use crate::batches::{assert_close, config, mean_loss, reference_rows, unit_tensor, values};

const DIM: usize = 32;

fn all_gradients(out: &LossOutput) -> Vec<f64> {
    let tensors = [
        Some(&out.queries_gradient),
        out.keys_gradient.as_ref(),
        out.negatives_gradient.as_ref(),
    ];
    tensors.into_iter().flatten().flat_map(values).collect()
}

#[test]
fn temperature_one_hundredth_does_not_overflow() -> Result<()> {
    let (queries, negatives) = (unit_tensor(70, 20, DIM), unit_tensor(71, 600, DIM));
    // Positives that are opposite to the query, and the query itself among the negatives: logits
    // reach -100 and 100, and exp(200) is beyond f32.
    let keys = queries.neg()?;
    let negatives = Tensor::cat(&[&negatives, &queries], 0)?;
    let draw = NegativeDraw::all_others(20)?;
    for alpha in [Alpha::Infonce, Alpha::Equivalent(65536.0), Alpha::Decoupled] {
        let setting = config(0.01, alpha);
        let loss = ContrastiveLoss::new(setting)?;
        let shared = Negatives::Shared(&negatives);
        let out = loss.evaluate(&queries, &keys, shared, WantedGradients::ALL)?;
        let wide = values(&negatives);
        let expected = reference_rows(&queries, &keys, |_| wide.clone(), &setting);
        assert!(out.loss > 199.0, "{}", out.loss);
        assert_close("loss", &[out.loss], &[mean_loss(&expected)], 1e-5);
        let expected: Vec<f64> = expected
            .iter()
            .flat_map(|r| &r.query_gradient)
            .map(|g| g / 20.0)
            .collect();
        assert_close("queries", &values(&out.queries_gradient), &expected, 1e-5);
        assert!(all_gradients(&out).iter().all(|g| g.is_finite()));

        let out = loss.evaluate(
            &queries,
            &keys,
            Negatives::InBatch(&draw),
            WantedGradients::ALL,
        )?;
        assert!(out.loss.is_finite() && all_gradients(&out).iter().all(|g| g.is_finite()));
        let out = nt_xent(&setting, &queries, &keys)?;
        assert!(out.loss > 100.0 && out.loss.is_finite());
        assert!(all_gradients(&out).iter().all(|g| g.is_finite()));
    }
    Ok(())
}

/// Rounded inputs are the same numbers for both, so the loss agrees as in f32 and the gradient to its
/// own rounding, half a unit of 2^-8 relative.
#[test]
fn bf16_is_computed_in_f32() -> Result<()> {
    let half = |table, rows| unit_tensor(table, rows, DIM).to_dtype(DType::BF16);
    let (queries, keys, negatives) = (half(72, 30)?, half(73, 30)?, half(74, 700)?);
    let setting = config(0.2, Alpha::Equivalent(65536.0));
    let loss = ContrastiveLoss::new(setting)?;
    let shared = Negatives::Shared(&negatives);
    let out = loss.evaluate(&queries, &keys, shared, WantedGradients::ALL)?;
    let wide = values(&negatives);
    let rows = reference_rows(&queries, &keys, |_| wide.clone(), &setting);
    assert_close("loss", &[out.loss], &[mean_loss(&rows)], 1e-5);

    assert_eq!(out.queries_gradient.dtype(), DType::BF16);
    let got = values(&out.queries_gradient);
    let expected = rows
        .iter()
        .flat_map(|row| &row.query_gradient)
        .map(|g| g / 30.0);
    for (got, expected) in got.iter().zip(expected) {
        let allowed = expected.abs() / 256.0 + 1e-6;
        assert!((got - expected).abs() <= allowed, "{got} is not {expected}");
    }
    Ok(())
}

/// Rounding unit rows to bf16 moves a similarity by at most 2^-8 (2^-9 for each side), a logit at
/// temperature 0.2 by 0.02, and the loss by at most twice that.
#[test]
fn bf16_stays_near_f32() -> Result<()> {
    let (queries, keys) = (unit_tensor(75, 64, DIM), unit_tensor(76, 64, DIM));
    let draw = NegativeDraw::sample(DrawKind::PerQuery, 64, 16, 0, 0)?;
    let loss = ContrastiveLoss::new(config(0.2, Alpha::Equivalent(256.0)))?;
    let negatives = Negatives::InBatch(&draw);
    let exact = loss.evaluate(&queries, &keys, negatives, WantedGradients::ALL)?;
    let (queries, keys) = (queries.to_dtype(DType::BF16)?, keys.to_dtype(DType::BF16)?);
    let rounded = loss.evaluate(&queries, &keys, negatives, WantedGradients::ALL)?;
    let difference = (rounded.loss - exact.loss).abs();
    assert!(difference > 0.0 && difference < 0.04, "{difference}");
    let (got, expected) = (all_gradients(&rounded), all_gradients(&exact));
    assert_close("gradients", &got, &expected, 0.02);
    Ok(())
}

#[test]
fn bf16_runs_through_candles_graph() -> Result<()> {
    let queries = Var::from_tensor(&unit_tensor(77, 8, DIM).to_dtype(DType::BF16)?)?;
    let (keys, queue) = (unit_tensor(78, 8, DIM), unit_tensor(79, 40, DIM));
    let loss = ContrastiveLoss::new(config(0.2, Alpha::Infonce))?;
    let value = loss.forward(&queries, &keys, Negatives::Shared(&queue))?;
    let gradients = value.backward()?;
    let gradient = gradients.get(&queries).expect("a gradient");
    assert_eq!(gradient.dtype(), DType::BF16);
    let wanted = WantedGradients::QUERIES;
    let out = loss.evaluate(&queries, &keys, Negatives::Shared(&queue), wanted)?;
    assert_eq!(values(gradient), values(&out.queries_gradient));
    Ok(())
}

#[test]
fn what_is_not_a_number_shows_in_the_loss() -> Result<()> {
    let rows = unit_tensor(80, 20, DIM);
    let negatives = unit_tensor(81, 300, DIM);
    let spoiled = |rows: &Tensor, value: f32| -> Result<Tensor> {
        let mut all = rows.flatten_all()?.to_vec1::<f32>()?;
        all[3 * DIM + 5] = value;
        Tensor::from_vec(all, rows.shape(), rows.device())
    };
    let draw = NegativeDraw::all_others(20)?;
    let loss = ContrastiveLoss::new(config(0.2, Alpha::Equivalent(256.0)))?;
    let wanted = WantedGradients::ALL;
    for value in [f32::NAN, f32::INFINITY] {
        let bad_rows = spoiled(&rows, value)?;
        let bad_negatives = spoiled(&negatives, value)?;
        let losses = [
            loss.evaluate(&bad_rows, &rows, Negatives::Shared(&negatives), wanted)?
                .loss,
            loss.evaluate(&rows, &bad_rows, Negatives::InBatch(&draw), wanted)?
                .loss,
            loss.evaluate(&rows, &rows, Negatives::Shared(&bad_negatives), wanted)?
                .loss,
            nt_xent(loss.config(), &bad_rows, &rows)?.loss,
        ];
        assert!(
            losses.iter().all(|loss| !loss.is_finite()),
            "{value}: {losses:?}"
        );
    }
    Ok(())
}
