//! The bounds on mutual information, the dependence on the negative count, and batch statistics.

use eqco_core::reference::query_loss;
use eqco_core::{
    Alpha, ContrastiveLoss, Negatives, WantedGradients, guaranteed_bound, paper_bound,
};
use serde_json::Value;

use crate::batches::{assert_close, config, matrix};
use crate::vector_file::{HASHED, HASHED_DIM, count, number, section};

/// The stored toy distribution: two query values, three key values.
const KEYS_GIVEN_QUERY: [[f64; 3]; 2] = [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]];
const KEYS: [f64; 3] = [0.4, 0.2, 0.4];
const OTHER_CRITIC: [[f64; 3]; 2] = [[1.0, 0.3, -0.5], [-1.5, 0.2, 0.9]];

/// Expected loss over all draws of the toy distribution, with the reference on one-dimensional rows:
/// a query of 1 and keys that are the critic's values.
fn expected_loss(critic: [[f64; 3]; 2], alpha: Alpha, negative_count: usize) -> f64 {
    let setting = config(1.0, alpha);
    let mut total = 0.0;
    for (query, values) in critic.iter().enumerate() {
        // Draws of the negatives by how often each key comes: a + b + c = K.
        for a in 0..=negative_count {
            for b in 0..=negative_count - a {
                let counts = [a, b, negative_count - a - b];
                let negatives: Vec<f64> = (0..3).flat_map(|k| vec![values[k]; counts[k]]).collect();
                let chance = multinomial(counts);
                for positive in 0..3 {
                    let weight = 0.5 * KEYS_GIVEN_QUERY[query][positive] * chance;
                    let row = query_loss(&[1.0], &[values[positive]], &negatives, &setting);
                    total += weight * row.expect("valid rows").loss;
                }
            }
        }
    }
    total
}

fn multinomial(counts: [usize; 3]) -> f64 {
    let log_factorial = |n: usize| (1..=n).map(|i| (i as f64).ln()).sum::<f64>();
    let ways = log_factorial(counts.iter().sum()) - counts.map(log_factorial).iter().sum::<f64>();
    let log_chance: f64 = counts
        .iter()
        .zip(KEYS)
        .map(|(&n, p)| n as f64 * f64::ln(p))
        .sum();
    (ways + log_chance).exp()
}

fn best_critic() -> [[f64; 3]; 2] {
    KEYS_GIVEN_QUERY.map(|row| [0, 1, 2].map(|k| f64::ln(row[k] / KEYS[k])))
}

#[test]
fn every_stored_bound_and_its_guaranteed_form() {
    let stored = section("mi_bound");
    let information = number(stored, "I");
    let rows = stored["finite_K"].as_array().expect("a list");
    assert_eq!(rows.len(), 35);
    let mut exceeding = 0;
    for row in rows {
        let (negative_count, alpha) = (count(row, "K"), Alpha::Equivalent(number(row, "alpha")));
        let critics = [
            (best_critic(), "loss_opt", "bound_opt"),
            (OTHER_CRITIC, "loss_other_critic", "bound_other"),
        ];
        for (critic, loss_key, bound_key) in critics {
            let loss = expected_loss(critic, alpha, negative_count);
            assert_close(loss_key, &[loss], &[number(row, loss_key)], 1e-11);
            let paper = paper_bound(loss, alpha, negative_count);
            assert!(
                (paper - number(row, bound_key)).abs() < 1e-10,
                "{bound_key} {row}"
            );
            let guaranteed = guaranteed_bound(loss, alpha, negative_count);
            assert!(
                guaranteed <= information,
                "{guaranteed} is above {information}: {row}"
            );
            if number(row, "alpha") <= negative_count as f64 {
                assert_eq!(guaranteed, paper);
            }
        }
        let exceeds = number(row, "bound_opt") > information;
        assert_eq!(Value::Bool(exceeds), row["bound_exceeds_I"]);
        exceeding += u32::from(exceeds);
    }
    assert!(
        exceeding > 0,
        "the stored counter-examples to the paper's bound"
    );
}

#[test]
fn bounds_of_dcl_are_those_of_its_limit() {
    let dcl = paper_bound(1.5, Alpha::Decoupled, 16);
    let alpha = 1e12;
    let near = paper_bound(1.5 + (alpha / 16f64).ln(), Alpha::Equivalent(alpha), 16);
    assert!((dcl - near).abs() < 1e-9);

    // One query, one negative: positive 0.8, negative 0 at temperature 1.
    let (query, key, negative) = (matrix(&[1.0, 0.0], 2), matrix(&[0.8, 0.6], 2), [0.0, 1.0]);
    let loss = ContrastiveLoss::new(config(1.0, Alpha::Decoupled)).expect("valid");
    let negative = matrix(&negative, 2);
    let shared = Negatives::Shared(&negative);
    let out = loss
        .evaluate(&query, &key, shared, WantedGradients::QUERIES)
        .expect("valid");
    let expected = 2f64.ln() - (-0.8f64).exp().ln_1p();
    assert_close(
        "guaranteed",
        &[out.statistics.guaranteed_bound],
        &[expected],
        1e-6,
    );
    assert_close("paper", &[out.statistics.paper_bound], &[0.8], 1e-6);
}

/// Similarities of the hashed query with its 65,536 negatives.
fn similarities() -> Vec<f64> {
    let rows = HASHED.negatives.chunks_exact(HASHED_DIM);
    rows.map(|key| HASHED.query.iter().zip(key).map(|(q, k)| q * k).sum())
        .collect()
}

fn alphas() -> [(&'static str, Alpha); 3] {
    [
        ("infonce", Alpha::Infonce),
        ("eqco65536", Alpha::Equivalent(65536.0)),
        ("eqco256", Alpha::Equivalent(256.0)),
    ]
}

#[test]
fn mean_and_spread_of_loss_and_gradient_scale_over_blocks_of_negatives() {
    let similarities = similarities();
    for row in section("k_dependence")["rows"].as_array().expect("a list") {
        let positive = [number(row, "cos_pos")];
        let blocks: Vec<&[f64]> = similarities.chunks_exact(count(row, "K")).collect();
        assert_eq!(blocks.len(), count(row, "n_blocks"));
        for (key, alpha) in alphas() {
            let setting = config(0.2, alpha);
            let rows: Vec<_> = blocks
                .iter()
                .map(|block| query_loss(&[1.0], &positive, block, &setting).expect("valid rows"))
                .collect();
            let share = 1.0 / rows.len() as f64;
            let loss: f64 = rows.iter().map(|r| share * r.loss).sum();
            let scale: f64 = rows.iter().map(|r| share * r.gradient_scale).sum();
            let spread = rows
                .iter()
                .map(|r| share * (r.gradient_scale - scale).powi(2));
            let stored = &row[key];
            assert_close("mean loss", &[loss], &[number(stored, "mean_loss")], 1e-10);
            assert_close("mean g", &[scale], &[number(stored, "mean_1mp0")], 1e-10);
            let spread = spread.sum::<f64>().sqrt();
            assert!(
                (spread - number(stored, "std_1mp0")).abs() < 1e-9,
                "{key} {row}"
            );
        }
    }
}

/// The fused kernel as a batch: every block of K similarities is one query of dimension K whose keys
/// are unit axes, so that its negatives have exactly these similarities.
#[test]
fn batch_statistics_match_the_stored_dependence_on_the_negative_count() {
    let similarities = similarities();
    let rows = section("k_dependence")["rows"].as_array().expect("a list");
    let usable = rows
        .iter()
        .filter(|row| [4, 16, 64, 256].contains(&count(row, "K")));
    for row in usable {
        let negative_count = count(row, "K");
        let dim = negative_count + 1;
        let used = 64 * negative_count.min(64);
        let blocks: Vec<&[f64]> = similarities[..used].chunks_exact(negative_count).collect();
        // The last axis belongs to the positive.
        let queries: Vec<f32> = blocks
            .iter()
            .flat_map(|block| {
                block
                    .iter()
                    .chain([&row["cos_pos"].as_f64().expect("a number")])
                    .map(|&s| s as f32)
                    .collect::<Vec<_>>()
            })
            .collect();
        let axis = |at: usize| (0..dim).map(move |j| f32::from(u8::from(j == at)));
        let keys: Vec<f32> = blocks.iter().flat_map(|_| axis(dim - 1)).collect();
        let negatives: Vec<f32> = (0..negative_count).flat_map(axis).collect();
        let (queries, keys) = (matrix(&queries, dim), matrix(&keys, dim));
        let negatives = matrix(&negatives, dim);
        for (key, alpha) in alphas() {
            let loss = ContrastiveLoss::new(config(0.2, alpha)).expect("valid");
            let shared = Negatives::Shared(&negatives);
            let out = loss.evaluate(&queries, &keys, shared, WantedGradients::QUERIES);
            let got = out.expect("valid batch").statistics;

            let setting = config(0.2, alpha);
            let positive = [number(row, "cos_pos")];
            let expected: Vec<_> = blocks
                .iter()
                .map(|block| query_loss(&[1.0], &positive, block, &setting).expect("valid"))
                .collect();
            let share = 1.0 / expected.len() as f64;
            let scale: f64 = expected.iter().map(|r| share * r.gradient_scale).sum();
            let spread = expected
                .iter()
                .map(|r| share * (r.gradient_scale - scale).powi(2));
            let loss: f64 = expected.iter().map(|r| share * r.loss).sum();
            assert_close(key, &[got.loss, got.gradient_scale], &[loss, scale], 1e-5);
            let spread = spread.sum::<f64>().sqrt();
            assert!(
                (got.gradient_scale_deviation - spread).abs() < 1e-6,
                "{key}: spread"
            );
            assert_close("positive", &[got.positive_similarity], &positive, 1e-6);
            let mean: f64 = blocks.concat().iter().sum::<f64>() / used as f64;
            assert!(
                (got.negative_similarity - mean).abs() < 1e-6,
                "negative similarity"
            );
            let hits = blocks
                .iter()
                .filter(|b| b.iter().all(|&s| s < positive[0]))
                .count();
            assert_eq!(got.contrast_top1, hits as f64 * share);
            assert_eq!(
                got.guaranteed_bound,
                guaranteed_bound(got.loss, alpha, negative_count)
            );
            assert_eq!(
                got.paper_bound,
                paper_bound(got.loss, alpha, negative_count)
            );
        }
    }
}
