//! The stored whole batches, through candle's autograd, normalisation included.

use candle_core::{Result, Tensor, Var};
use eqco_core::reference::nt_xent_loss;
use eqco_core::{
    Alpha, ContrastiveLoss, LossConfig, NegativeDraw, Negatives, WantedGradients, nt_xent,
    nt_xent_forward,
};
use serde_json::Value;

use crate::batches::{assert_close, matrix, mean_loss, reference_rows, values};
use crate::vector_file::{count, number, numbers, section, unit};

fn case(name: &str) -> &'static Value {
    let cases = section("batch_cases").as_array().expect("a list");
    cases
        .iter()
        .find(|case| case["name"] == name)
        .expect("a stored batch")
}

fn config(case: &Value) -> LossConfig {
    let alpha = Alpha::Equivalent(number(case, "alpha"));
    LossConfig {
        temperature: number(case, "tau"),
        alpha,
    }
}

fn tensor(case: &Value, key: &str) -> Tensor {
    let rows: Vec<f32> = numbers(&case[key]).into_iter().map(|x| x as f32).collect();
    matrix(&rows, count(case, "dim"))
}

fn normalised(rows: &Tensor) -> Result<Tensor> {
    rows.broadcast_div(&rows.sqr()?.sum_keepdim(1)?.sqrt()?)
}

/// Loss, gradient of the raw queries and losses of the rows.
fn check_in_batch(case: &Value, draw: &NegativeDraw) -> Result<()> {
    // Both stored SiMo batches use the embeddings of the first.
    let inputs = self::case("40_simo_batch");
    let queries = Var::from_tensor(&tensor(inputs, "U"))?;
    let (unit_queries, keys) = (normalised(&queries)?, normalised(&tensor(inputs, "V"))?);
    let loss = ContrastiveLoss::new(config(case))?;
    let value = loss.forward(&unit_queries, &keys, Negatives::InBatch(draw))?;
    let gradients = value.backward()?;

    let expected = number(case, "mean_loss");
    assert_close(
        "mean loss",
        &[f64::from(value.to_scalar::<f32>()?)],
        &[expected],
        1e-5,
    );
    let gradient = values(gradients.get(&queries).expect("a gradient"));
    assert_close("grad_U", &gradient, &numbers(&case["grad_U"]), 1e-5);

    let dim = count(case, "dim");
    let key_rows = values(&keys);
    let gather = |i: usize| -> Vec<f64> {
        let rows = draw.of_query(i).iter();
        rows.flat_map(|&k| key_rows[k as usize * dim..][..dim].to_vec())
            .collect()
    };
    let rows = reference_rows(&unit_queries, &keys, gather, &config(case));
    let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
    assert_close("row losses", &losses, &numbers(&case["per_row_loss"]), 1e-5);
    assert_close("mean of rows", &[mean_loss(&rows)], &[expected], 1e-5);
    Ok(())
}

#[test]
fn simo_with_drawn_negatives() -> Result<()> {
    let case = case("40_simo_batch");
    let keys = numbers(&case["neg_key_ids"])
        .into_iter()
        .map(|k| k as u32)
        .collect();
    let draw = NegativeDraw::from_indices(count(case, "B"), count(case, "K"), keys)?;
    check_in_batch(case, &draw)
}

#[test]
fn simo_with_all_others_is_plain_infonce() -> Result<()> {
    let case = case("41_simo_batch_full_infonce");
    check_in_batch(case, &NegativeDraw::all_others(count(case, "B"))?)
}

#[test]
fn moco_queue() -> Result<()> {
    for name in ["60_moco_queue_alpha4", "60_moco_queue_alpha65536"] {
        let case = case(name);
        let queries = Var::from_tensor(&tensor(case, "q_raw"))?;
        let (unit_queries, keys) = (normalised(&queries)?, normalised(&tensor(case, "k_raw"))?);
        let queue = tensor(case, "queue");
        let loss = ContrastiveLoss::new(config(case))?;
        let value = loss.forward(&unit_queries, &keys, Negatives::Shared(&queue))?;
        let gradients = value.backward()?;
        let value = f64::from(value.to_scalar::<f32>()?);
        assert_close(name, &[value], &[number(case, "mean_loss")], 1e-5);
        let gradient = values(gradients.get(&queries).expect("a gradient"));
        assert_close(name, &gradient, &numbers(&case["grad_q_raw"]), 1e-5);

        let queue = values(&queue);
        let rows = reference_rows(&unit_queries, &keys, |_| queue.clone(), &config(case));
        let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
        assert_close(name, &losses, &numbers(&case["per_row_loss"]), 1e-5);
    }
    Ok(())
}

#[test]
fn nt_xent_through_both_views() -> Result<()> {
    for name in ["50_ntxent_alpha4", "50_ntxent_alpha64"] {
        let case = case(name);
        let half = count(case, "N");
        let rows = Var::from_tensor(&tensor(case, "Z"))?;
        let unit_rows = normalised(&rows)?;
        let views = [
            unit_rows.narrow(0, 0, half)?,
            unit_rows.narrow(0, half, half)?,
        ];
        let value = nt_xent_forward(&config(case), &views[0], &views[1])?;
        let gradients = value.backward()?;
        let value = f64::from(value.to_scalar::<f32>()?);
        assert_close(name, &[value], &[number(case, "mean_loss")], 1e-5);
        let gradient = values(gradients.get(&rows).expect("a gradient"));
        assert_close(name, &gradient, &numbers(&case["grad_Z"]), 1e-5);
        assert_eq!(
            nt_xent(&config(case), &views[0], &views[1])?.loss as f32 as f64,
            value
        );
    }
    Ok(())
}

#[test]
fn the_nt_xent_reference_in_float64() {
    for name in ["50_ntxent_alpha4", "50_ntxent_alpha64"] {
        let case = case(name);
        let dim = count(case, "dim");
        let raw = numbers(&case["Z"]);
        let rows: Vec<f64> = raw
            .chunks_exact(dim)
            .flat_map(|row| unit(row.to_vec()))
            .collect();
        let got = nt_xent_loss(&rows, dim, &config(case)).expect("valid rows");
        assert_close(
            name,
            &got.row_losses,
            &numbers(&case["per_row_loss"]),
            1e-12,
        );
        assert_close(name, &[got.loss], &[number(case, "mean_loss")], 1e-12);

        // The stored gradient is that of the raw rows: take the part along each row off.
        let mut gradient = Vec::new();
        for (i, row) in raw.chunks_exact(dim).enumerate() {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            let (unit_row, g) = (&rows[i * dim..][..dim], &got.gradient[i * dim..][..dim]);
            let along: f64 = unit_row.iter().zip(g).map(|(u, g)| u * g).sum();
            gradient.extend(unit_row.iter().zip(g).map(|(u, g)| (g - along * u) / norm));
        }
        assert_close(name, &gradient, &numbers(&case["grad_Z"]), 1e-12);
    }
}

#[test]
fn only_wanted_gradients_are_computed() -> Result<()> {
    let case = case("60_moco_queue_alpha4");
    let (queries, queue) = (tensor(case, "q_raw"), tensor(case, "queue"));
    let loss = ContrastiveLoss::new(config(case))?;
    let shared = Negatives::Shared(&queue);
    let little = loss.evaluate(&queries, &queries, shared, WantedGradients::QUERIES)?;
    assert!(little.keys_gradient.is_none() && little.negatives_gradient.is_none());
    let all = loss.evaluate(&queries, &queries, shared, WantedGradients::ALL)?;
    assert_eq!(all.keys_gradient.expect("wanted").dims(), [2, 3]);
    assert_eq!(all.negatives_gradient.expect("wanted").dims(), [4, 3]);
    Ok(())
}
