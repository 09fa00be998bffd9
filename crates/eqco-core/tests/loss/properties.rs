//! Identities that the loss must satisfy whatever the numbers are.

use candle_core::{IndexOp, Result, Tensor, Var};
use candle_nn::loss::cross_entropy;
use eqco_core::{Alpha, ContrastiveLoss, LossOutput, NegativeDraw, Negatives, WantedGradients};

use crate::batches::{
    assert_close, config, matrix, mean_loss, reference_rows, unit_rows, unit_tensor, values,
};

const DIM: usize = 24;

fn evaluate(
    (temperature, alpha): (f64, Alpha),
    queries: &Tensor,
    keys: &Tensor,
    negatives: Negatives<'_>,
) -> Result<LossOutput> {
    let loss = ContrastiveLoss::new(config(temperature, alpha))?;
    Ok(loss.evaluate(queries, keys, negatives, WantedGradients::ALL)?)
}

#[test]
fn equal_similarities_give_ln_one_plus_alpha_for_every_negative_count() -> Result<()> {
    let queries = matrix(&[1.0, 0.0].repeat(3), 2);
    for negative_count in [1, 2, 3, 16, 255, 256, 257, 4097] {
        let negatives = matrix(&[1.0, 0.0].repeat(negative_count), 2);
        for alpha in [1e-3, 0.5, 16.0, 256.0, 65536.0] {
            for temperature in [0.01, 0.2, 1.0] {
                let setting = (temperature, Alpha::Equivalent(alpha));
                let out = evaluate(setting, &queries, &queries, Negatives::Shared(&negatives))?;
                assert_close("loss", &[out.loss], &[alpha.ln_1p()], 1e-5);
                let scale = alpha / (1.0 + alpha);
                assert_close("g", &[out.statistics.gradient_scale], &[scale], 1e-5);
                assert_eq!(out.statistics.contrast_top1, 0.0, "a tie is a miss");
                let rounding = 1e-6 / temperature;
                assert!(
                    values(&out.queries_gradient)
                        .iter()
                        .all(|g| g.abs() < rounding)
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_batch_of_copies_gives_ln_one_plus_alpha_for_drawn_negatives_too() -> Result<()> {
    let rows = matrix(&[0.6, 0.0, 0.8].repeat(40), 3);
    for negative_count in [1, 7, 39] {
        let draw = NegativeDraw::sample(Default::default(), 40, negative_count, 3, 0)?;
        let setting = (0.1, Alpha::Equivalent(256.0));
        let out = evaluate(setting, &rows, &rows, Negatives::InBatch(&draw))?;
        assert_close("loss", &[out.loss], &[257f64.ln()], 1e-5);
        assert_eq!(out.statistics.contrast_top1, 0.0);
    }
    Ok(())
}

#[test]
fn alpha_equal_to_the_negative_count_is_candles_cross_entropy() -> Result<()> {
    let (count, negative_count, temperature) = (9, 300, 0.2);
    let queries = Var::from_tensor(&unit_tensor(10, count, DIM))?;
    let keys = Var::from_tensor(&unit_tensor(11, count, DIM))?;
    let negatives = Var::from_tensor(&unit_tensor(12, negative_count, DIM))?;

    let positive = (queries.as_tensor() * keys.as_tensor())?.sum_keepdim(1)?;
    let logits = Tensor::cat(&[positive, queries.matmul(&negatives.t()?)?], 1)?;
    let labels = Tensor::zeros(count, candle_core::DType::U32, queries.device())?;
    let expected = cross_entropy(&(logits / temperature)?, &labels)?;
    let gradients = expected.backward()?;

    for alpha in [Alpha::Infonce, Alpha::Equivalent(negative_count as f64)] {
        let out = evaluate(
            (temperature, alpha),
            &queries,
            &keys,
            Negatives::Shared(&negatives),
        )?;
        let expected = f64::from(expected.to_scalar::<f32>()?);
        assert_close("loss", &[out.loss], &[expected], 1e-6);
        let got = [
            Some(&out.queries_gradient),
            out.keys_gradient.as_ref(),
            out.negatives_gradient.as_ref(),
        ];
        for (got, var) in got.into_iter().zip([&queries, &keys, &negatives]) {
            let expected = values(gradients.get(var).expect("a gradient"));
            assert_close("gradient", &values(got.expect("wanted")), &expected, 1e-5);
        }
    }
    Ok(())
}

#[test]
fn large_alpha_approaches_dcl_up_to_its_constant() -> Result<()> {
    let (queries, keys) = (unit_tensor(13, 6, DIM), unit_tensor(14, 6, DIM));
    let negatives = unit_tensor(15, 40, DIM);
    let shared = Negatives::Shared(&negatives);
    let dcl = evaluate((0.2, Alpha::Decoupled), &queries, &keys, shared)?;
    let expected = values(&dcl.queries_gradient);
    for (alpha, tolerance) in [(1e6, 1e-3), (1e9, 2e-6)] {
        let eqco = evaluate((0.2, Alpha::Equivalent(alpha)), &queries, &keys, shared)?;
        let loss = eqco.loss - (alpha / 40.0).ln();
        assert!(
            (loss - dcl.loss).abs() < tolerance,
            "alpha {alpha}: {loss} and {}",
            dcl.loss
        );
        assert_close(
            "gradient",
            &values(&eqco.queries_gradient),
            &expected,
            tolerance,
        );
        let scale = (eqco.temperature_gradient, dcl.temperature_gradient);
        assert_close("temperature", &[scale.0], &[scale.1], tolerance);
    }
    assert_eq!(dcl.statistics.gradient_scale, 1.0);
    Ok(())
}

#[test]
fn dcl_is_log_sum_exp_of_negatives_minus_positive() -> Result<()> {
    let queries = matrix(&[1.0, 0.0], 2);
    let keys = matrix(&[0.6, 0.8], 2);
    let negatives = matrix(&[0.0, 1.0, 0.5, 0.5], 2);
    let shared = Negatives::Shared(&negatives);
    let out = evaluate((0.5, Alpha::Decoupled), &queries, &keys, shared)?;
    let expected = (1.0 + 1f64.exp()).ln() - 1.2;
    assert_close("loss", &[out.loss], &[expected], 1e-6);
    Ok(())
}

#[test]
fn the_order_of_negatives_does_not_matter() -> Result<()> {
    let (queries, keys) = (unit_tensor(16, 7, DIM), unit_tensor(17, 7, DIM));
    let rows = unit_rows(18, 700, DIM);
    let reversed: Vec<f32> = rows.chunks_exact(DIM).rev().flatten().copied().collect();
    let (forward, backward) = (matrix(&rows, DIM), matrix(&reversed, DIM));
    let setting = (0.07, Alpha::Equivalent(4096.0));
    let a = evaluate(setting, &queries, &keys, Negatives::Shared(&forward))?;
    let b = evaluate(setting, &queries, &keys, Negatives::Shared(&backward))?;
    assert_close("loss", &[a.loss], &[b.loss], 1e-6);
    let (ga, gb) = (values(&a.queries_gradient), values(&b.queries_gradient));
    assert_close("queries", &ga, &gb, 2e-6);
    let ga = values(&a.negatives_gradient.expect("wanted"));
    let gb = values(&b.negatives_gradient.expect("wanted"));
    let gb: Vec<f64> = gb.chunks_exact(DIM).rev().flatten().copied().collect();
    assert_close("negatives", &ga, &gb, 2e-6);
    Ok(())
}

#[test]
fn repeating_every_negative_changes_nothing_at_fixed_alpha() -> Result<()> {
    let (queries, keys) = (unit_tensor(19, 5, DIM), unit_tensor(20, 5, DIM));
    let once = unit_tensor(21, 30, DIM);
    let thrice = Tensor::cat(&[&once, &once, &once], 0)?;
    let setting = (0.2, Alpha::Equivalent(256.0));
    let a = evaluate(setting, &queries, &keys, Negatives::Shared(&once))?;
    let b = evaluate(setting, &queries, &keys, Negatives::Shared(&thrice))?;
    assert_close("loss", &[a.loss], &[b.loss], 1e-6);
    let (ga, gb) = (values(&a.queries_gradient), values(&b.queries_gradient));
    assert_close("queries", &ga, &gb, 2e-6);
    let third = (values(&b.negatives_gradient.expect("wanted").i(..30)?), 3.0);
    let third: Vec<f64> = third.0.into_iter().map(|g| g * third.1).collect();
    assert_close(
        "negatives",
        &third,
        &values(&a.negatives_gradient.expect("wanted")),
        2e-6,
    );
    Ok(())
}

#[test]
fn sizes_around_tile_edges_match_the_reference() -> Result<()> {
    let setting = config(0.1, Alpha::Equivalent(512.0));
    let loss = ContrastiveLoss::new(setting)?;
    let sizes = [
        (1, 1, 1),
        (2, 255, 3),
        (127, 256, 16),
        (128, 257, 17),
        (130, 1024, 5),
        (3, 1025, 8),
        (257, 1, 2),
        (5, 3000, 33),
    ];
    for (count, negative_count, dim) in sizes {
        let (queries, keys) = (unit_tensor(22, count, dim), unit_tensor(23, count, dim));
        let negatives = unit_tensor(24, negative_count, dim);
        let shared = Negatives::Shared(&negatives);
        let out = loss.evaluate(&queries, &keys, shared, WantedGradients::ALL)?;

        let wide = values(&negatives);
        let rows = reference_rows(&queries, &keys, |_| wide.clone(), &setting);
        let share = 1.0 / count as f64;
        let what = format!("N {count}, K {negative_count}, D {dim}");
        assert_close(&what, &[out.loss], &[mean_loss(&rows)], 1e-5);
        let expected: Vec<f64> = rows
            .iter()
            .flat_map(|row| &row.query_gradient)
            .map(|g| g * share)
            .collect();
        assert_close(&what, &values(&out.queries_gradient), &expected, 1e-5);
        let mut expected = vec![0.0; wide.len()];
        for row in &rows {
            let pairs = expected.iter_mut().zip(&row.negatives_gradient);
            pairs.for_each(|(sum, g)| *sum += share * g);
        }
        let got = values(&out.negatives_gradient.expect("wanted"));
        assert_close(&what, &got, &expected, 1e-5);
        let expected: f64 = rows
            .iter()
            .map(|row| share * row.temperature_gradient)
            .sum();
        assert!(
            (out.temperature_gradient - expected).abs() < 1e-3,
            "{what}: temperature"
        );
    }
    Ok(())
}
