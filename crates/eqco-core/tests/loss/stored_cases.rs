//! Every stored single-query case: the float64 reference at 1e-12 (1e-11 with 65,536 negatives), the
//! fused f32 kernel at 1e-5 except for the cases whose values f32 cannot hold.

use candle_core::Tensor;
use eqco_core::reference::{QueryLoss, query_loss};
use eqco_core::{
    Alpha, ContrastiveLoss, LossConfig, LossOutput, Negatives, WantedGradients, margin,
};
use serde_json::Value;

use crate::batches::{assert_close, matrix, values};
use crate::vector_file::{HASHED, HASHED_DIM, count, number, numbers, section};

/// Logits of thousands, or results below f32's range: only finiteness and rough size are asserted.
const BEYOND_F32: [&str; 4] = ["07", "09", "10", "11"];

struct Case {
    name: &'static str,
    stored: &'static Value,
    query: Vec<f64>,
    positive: Vec<f64>,
    negatives: Vec<f64>,
    config: LossConfig,
}

fn cases() -> Vec<Case> {
    let stored = section("cases").as_array().expect("a list");
    assert_eq!(stored.len(), 23, "stored cases");
    stored.iter().map(case).collect()
}

fn case(stored: &'static Value) -> Case {
    let (query, positive, negatives) = if stored["kind"] == "hashed" {
        let negatives = HASHED.negatives[..count(stored, "K") * HASHED_DIM].to_vec();
        (HASHED.query.clone(), HASHED.positive.clone(), negatives)
    } else {
        (
            numbers(&stored["q"]),
            numbers(&stored["k0"]),
            numbers(&stored["neg"]),
        )
    };
    let alpha = Alpha::Equivalent(number(stored, "alpha"));
    let config = LossConfig {
        temperature: number(stored, "tau"),
        alpha,
    };
    let name = stored["name"].as_str().expect("a name");
    Case {
        name,
        stored,
        query,
        positive,
        negatives,
        config,
    }
}

impl Case {
    /// Compares one result, given as one-row slices, with everything that is stored.
    fn check(&self, got: &QueryLoss, tolerance: f64) {
        let stored = self.stored;
        let name = |key: &str| format!("{} {key}", self.name);
        let scalar = |key: &str, value: f64| {
            assert_close(&name(key), &[value], &[number(stored, key)], tolerance);
        };
        scalar("loss", got.loss);
        scalar("one_minus_p0", got.gradient_scale);
        if stored["kind"] == "hashed" {
            let first = &got.query_gradient[..4];
            let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
            let scale = number(stored, "grad_q_l2");
            assert_close(
                &name("grad_q_l2"),
                &[norm(&got.query_gradient)],
                &[scale],
                tolerance,
            );
            assert_close(
                &name("grad_k0_l2"),
                &[norm(&got.positive_gradient)],
                &[number(stored, "grad_k0_l2")],
                tolerance,
            );
            let stored_first = numbers(&stored["grad_q_first4"]);
            for (g, e) in first.iter().zip(&stored_first) {
                assert!(
                    (g - e).abs() <= tolerance * scale,
                    "{}: {g} is not {e}",
                    self.name
                );
            }
            let sum: f64 = got.query_gradient.iter().sum();
            let sum_error = (sum - number(stored, "grad_q_sum")).abs();
            assert!(
                sum_error <= tolerance * scale * 10.0,
                "{}: sum {sum}",
                self.name
            );
            // Each negative's gradient is a multiple of the unit query: its length is g w_i / t.
            let pulls: f64 = got
                .negatives_gradient
                .chunks_exact(HASHED_DIM)
                .map(norm)
                .sum();
            assert_close(
                &name("sum_grad_neg_s"),
                &[pulls * self.config.temperature],
                &[number(stored, "sum_grad_neg_s")],
                tolerance,
            );
        } else {
            let vector = |key: &str, value: &[f64]| {
                assert_close(&name(key), value, &numbers(&stored[key]), tolerance);
            };
            vector("grad_q", &got.query_gradient);
            vector("grad_k0", &got.positive_gradient);
            vector("grad_neg", &got.negatives_gradient);
            let expected = number(stored, "grad_tau");
            let logits = number(stored, "s0").abs() * number(stored, "one_minus_p0");
            let allowed = tolerance * expected.abs().max(logits / self.config.temperature);
            let error = (got.temperature_gradient - expected).abs();
            assert!(error <= allowed, "{}: temperature {error:e}", self.name);
        }
    }

    fn fused(&self) -> LossOutput {
        let dim = self.query.len();
        let tensor = |rows: &[f64]| -> Tensor {
            matrix(&rows.iter().map(|&x| x as f32).collect::<Vec<_>>(), dim)
        };
        let negatives = tensor(&self.negatives);
        let loss = ContrastiveLoss::new(self.config).expect("a valid configuration");
        let (query, positive) = (tensor(&self.query), tensor(&self.positive));
        loss.evaluate(
            &query,
            &positive,
            Negatives::Shared(&negatives),
            WantedGradients::ALL,
        )
        .expect("a valid batch")
    }
}

fn as_query_loss(output: &LossOutput) -> QueryLoss {
    QueryLoss {
        loss: output.loss,
        gradient_scale: output.statistics.gradient_scale,
        query_gradient: values(&output.queries_gradient),
        positive_gradient: values(output.keys_gradient.as_ref().expect("wanted")),
        negatives_gradient: values(output.negatives_gradient.as_ref().expect("wanted")),
        temperature_gradient: output.temperature_gradient,
    }
}

#[test]
fn margins() {
    for case in cases() {
        let alpha = number(case.stored, "alpha");
        let got = margin(case.config.temperature, alpha, count(case.stored, "K"));
        assert_close(case.name, &[got], &[number(case.stored, "margin")], 1e-14);
        assert_eq!(case.config.margin(count(case.stored, "K")), got);
    }
}

#[test]
fn the_reference_matches_every_case() {
    for case in cases() {
        let tolerance = if count(case.stored, "K") == 65536 {
            1e-11
        } else {
            1e-12
        };
        let got = query_loss(&case.query, &case.positive, &case.negatives, &case.config);
        case.check(&got.expect("valid rows"), tolerance);
    }
}

#[test]
fn the_fused_kernel_matches_every_case_that_f32_can_hold() {
    let (beyond, within): (Vec<_>, Vec<_>) = cases()
        .into_iter()
        .partition(|case| BEYOND_F32.contains(&&case.name[..2]));
    assert_eq!((beyond.len(), within.len()), (4, 19));
    for case in within {
        case.check(&as_query_loss(&case.fused()), 1e-5);
    }
    for case in beyond {
        let got = as_query_loss(&case.fused());
        let expected = number(case.stored, "loss");
        assert!(
            (got.loss - expected).abs() <= 1e-4 * expected + 1e-30,
            "{}",
            case.name
        );
        let all = got.query_gradient.iter().chain(&got.negatives_gradient);
        assert!(
            all.chain(&got.positive_gradient).all(|g| g.is_finite()),
            "{}",
            case.name
        );
    }
}

#[test]
fn an_easy_pair_keeps_a_loss_above_zero_in_f32() {
    let easy = cases()
        .into_iter()
        .find(|case| case.name.starts_with("07"))
        .expect("case 07");
    let output = easy.fused();
    assert_close("loss", &[output.loss], &[1.258_417_931_812_518e-13], 1e-5);
}
