//! The loss and its gradients in plain float64 loops: the readable truth.
//!
//! Nothing here is fast. Every kernel is tested against these functions, and these against values
//! computed with 60 digits. With `s_0 = q.k_0 / t` and `s_i = q.k_i / t` for temperature `t`:
//!
//! ```text
//! d    = ln(sum_i exp(s_i)) + ln(alpha / K) - s_0
//! loss = ln(1 + exp(d)) = softplus(d)      g = sigmoid(d)      w = softmax of the s_i, i = 1..K
//! dloss/dq   =  (g / t) (sum_i w_i k_i - k_0)
//! dloss/dk_0 = -(g / t) q
//! dloss/dk_i =  (g w_i / t) q
//! dloss/dt   =  (g / t) (s_0 - sum_i w_i s_i)
//! ```
//!
//! This is the paper's loss (arXiv 2010.01929, equation 4) rewritten: `softplus(d)` stays accurate
//! on easy pairs, where the difference of two logarithms rounds to 0. For DCL `loss = d` without
//! `ln(alpha / K)`, and `g = 1`.

use crate::error::LossError;
use crate::margin::{Alpha, LossConfig};

/// Loss and gradients of one query.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryLoss {
    /// The loss in nats.
    pub loss: f64,
    /// The scalar `g`, 0 to 1, that multiplies every gradient.
    pub gradient_scale: f64,
    /// Gradient with respect to the query, `[D]`.
    pub query_gradient: Vec<f64>,
    /// Gradient with respect to the positive key, `[D]`.
    pub positive_gradient: Vec<f64>,
    /// Gradient with respect to the negatives, `[K, D]` in row-major order.
    pub negatives_gradient: Vec<f64>,
    /// Derivative with respect to the temperature.
    pub temperature_gradient: f64,
}

/// NT-Xent loss and gradient of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct NtXentLoss {
    /// Mean of the losses of all 2N rows, in nats.
    pub loss: f64,
    /// The loss of each row, `[2N]`.
    pub row_losses: Vec<f64>,
    /// Gradient of the mean loss with respect to the embeddings, `[2N, D]` in row-major order.
    pub gradient: Vec<f64>,
    /// Derivative of the mean loss with respect to the temperature.
    pub temperature_gradient: f64,
}

/// The loss of one query `[D]` with its positive key `[D]` and negatives `[K, D]` (row-major).
///
/// # Errors
/// [`LossError::Shape`] when the lengths do not fit together, [`LossError::NoNegatives`], and the
/// errors of [`LossConfig::validate`].
pub fn query_loss(
    query: &[f64],
    positive: &[f64],
    negatives: &[f64],
    config: &LossConfig,
) -> Result<QueryLoss, LossError> {
    config.validate()?;
    let dim = query.len();
    check_rows("query", query, dim)?;
    if positive.len() != dim {
        return Err(length_error("positive", format!("[{dim}]"), positive));
    }
    check_rows("negatives", negatives, dim)?;

    let temperature = config.temperature;
    let positive_logit = dot(query, positive) / temperature;
    let logits: Vec<f64> = negatives
        .chunks_exact(dim)
        .map(|key| dot(query, key) / temperature)
        .collect();
    let log_sum = log_sum_exp(&logits);
    let (loss, gradient_scale) =
        loss_and_scale(log_sum - positive_logit, config.alpha, logits.len());

    let weights: Vec<f64> = logits.iter().map(|s| (s - log_sum).exp()).collect();
    let mean_logit: f64 = weights.iter().zip(&logits).map(|(w, s)| w * s).sum();
    let factor = gradient_scale / temperature;
    let mut query_gradient: Vec<f64> = positive.iter().map(|k| -factor * k).collect();
    let mut negatives_gradient = Vec::with_capacity(negatives.len());
    for (key, weight) in negatives.chunks_exact(dim).zip(&weights) {
        for (sum, k) in query_gradient.iter_mut().zip(key) {
            *sum += factor * weight * k;
        }
        negatives_gradient.extend(query.iter().map(|q| factor * weight * q));
    }
    Ok(QueryLoss {
        loss,
        gradient_scale,
        query_gradient,
        positive_gradient: query.iter().map(|q| -factor * q).collect(),
        negatives_gradient,
        temperature_gradient: factor * (positive_logit - mean_logit),
    })
}

/// SimCLR's NT-Xent (arXiv 2002.05709, equation 1) with the margin rule: `embeddings` holds the first
/// view of `N` images and then the second, `[2N, D]`; row `i` pairs with row `i + N`, and its
/// negatives are the other `2N - 2` rows.
///
/// # Errors
/// [`LossError::Shape`] when the rows are not an even number of `dim` values each,
/// [`LossError::NoNegatives`] for a single image, and the errors of [`LossConfig::validate`].
pub fn nt_xent_loss(
    embeddings: &[f64],
    dim: usize,
    config: &LossConfig,
) -> Result<NtXentLoss, LossError> {
    check_rows("embeddings", embeddings, dim)?;
    let rows: Vec<&[f64]> = embeddings.chunks_exact(dim).collect();
    let count = rows.len();
    if !count.is_multiple_of(2) {
        return Err(length_error(
            "embeddings",
            format!("[2N, {dim}]"),
            embeddings,
        ));
    }

    let share = 1.0 / count as f64;
    let mut result = NtXentLoss {
        loss: 0.0,
        row_losses: Vec::with_capacity(count),
        gradient: vec![0.0; embeddings.len()],
        temperature_gradient: 0.0,
    };
    for query in 0..count {
        let partner = (query + count / 2) % count;
        let others: Vec<usize> = (0..count).filter(|&i| i != query && i != partner).collect();
        let negatives: Vec<f64> = others.iter().flat_map(|&i| rows[i]).copied().collect();
        let row = query_loss(rows[query], rows[partner], &negatives, config)?;

        result.loss += share * row.loss;
        result.row_losses.push(row.loss);
        result.temperature_gradient += share * row.temperature_gradient;
        let negative_rows = others
            .into_iter()
            .zip(row.negatives_gradient.chunks_exact(dim));
        let parts = [
            (query, &row.query_gradient[..]),
            (partner, &row.positive_gradient[..]),
        ];
        for (target, part) in parts.into_iter().chain(negative_rows) {
            let sums = &mut result.gradient[target * dim..][..dim];
            for (sum, value) in sums.iter_mut().zip(part) {
                *sum += share * value;
            }
        }
    }
    Ok(result)
}

/// The loss and the scalar `g` from `ln(sum_i exp(s_i)) - s_0`.
pub(crate) fn loss_and_scale(difference: f64, alpha: Alpha, negative_count: usize) -> (f64, f64) {
    match alpha {
        Alpha::Decoupled => (difference, 1.0),
        finite => {
            let d = difference + finite.log_ratio(negative_count);
            (softplus(d), sigmoid(d))
        }
    }
}

/// `ln(1 + exp(x))` without overflow for large `x` and without rounding to 0 for very negative `x`.
pub(crate) fn softplus(x: f64) -> f64 {
    let small = (-x.abs()).exp().ln_1p();
    if x > 0.0 { x + small } else { small }
}

fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x > 0.0 {
        1.0 / (1.0 + e)
    } else {
        e / (1.0 + e)
    }
}

fn log_sum_exp(logits: &[f64]) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + logits.iter().map(|s| (s - largest).exp()).sum::<f64>().ln()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn check_rows(input: &'static str, values: &[f64], dim: usize) -> Result<(), LossError> {
    if values.is_empty() && input == "negatives" {
        return Err(LossError::NoNegatives);
    }
    if dim == 0 || values.is_empty() || !values.len().is_multiple_of(dim) {
        return Err(length_error(
            input,
            format!("rows of {} values", dim.max(1)),
            values,
        ));
    }
    Ok(())
}

fn length_error(input: &'static str, expected: String, values: &[f64]) -> LossError {
    LossError::Shape {
        input,
        expected,
        got: vec![values.len()],
    }
}
