//! From the sweep over the negatives to loss, statistics and the gradient of the queries.

use rayon::prelude::*;

use super::sweep::{NegativeSweep, SoftmaxSums};
use crate::bound::{BatchStatistics, QueryStatistics};
use crate::margin::LossConfig;
use crate::reference::{loss_and_scale, softplus};

/// Two similarities whose relative difference is below this are a tie: about the rounding error of
/// an f32 dot product of unit vectors.
pub(super) const TIE: f64 = 1e-6;

/// Everything that needs only one pass over the negatives.
pub(super) struct Outcome {
    pub statistics: BatchStatistics,
    /// Gradient of the mean loss with respect to the queries, `[N, dim]`.
    pub queries_gradient: Vec<f32>,
    /// Derivative of the mean loss with respect to the temperature.
    pub temperature_gradient: f64,
    /// `g / (temperature * N)` for each query: what every gradient of that query is multiplied by.
    pub coefficients: Vec<f32>,
}

/// The queries and positives of a batch, `[N, dim]` each.
pub(super) struct Pairs<'a> {
    pub queries: &'a [f32],
    pub positives: &'a [f32],
    pub dim: usize,
    /// Negatives per query.
    pub negative_count: usize,
    pub config: &'a LossConfig,
}

/// What is computed for one query.
struct QueryOutcome {
    statistics: QueryStatistics,
    temperature_gradient: f64,
}

impl Pairs<'_> {
    /// Finishes the loss of all queries.
    pub(super) fn finish(&self, sweep: &NegativeSweep) -> Outcome {
        let mut queries_gradient = vec![0.0; self.queries.len()];
        let outcomes: Vec<QueryOutcome> = queries_gradient
            .par_chunks_exact_mut(self.dim)
            .zip(self.queries.par_chunks_exact(self.dim))
            .zip(self.positives.par_chunks_exact(self.dim))
            .zip(sweep.weighted_keys.par_chunks_exact(self.dim))
            .zip(&sweep.sums)
            .with_min_len(16)
            .map(|((((gradient, query), positive), weighted), sums)| {
                self.finish_query(query, positive, weighted, sums, gradient)
            })
            .collect();

        // Summed in the order of the queries, in float64: the same for any number of threads.
        let count = outcomes.len() as f64;
        let temperature_gradient = outcomes.iter().map(|o| o.temperature_gradient).sum::<f64>();
        let statistics: Vec<_> = outcomes.iter().map(|o| o.statistics).collect();
        let share = 1.0 / (self.config.temperature * count);
        Outcome {
            queries_gradient,
            temperature_gradient: temperature_gradient / count,
            coefficients: statistics
                .iter()
                .map(|q| (share * q.gradient_scale) as f32)
                .collect(),
            statistics: BatchStatistics::new(&statistics, self.config, self.negative_count),
        }
    }

    fn finish_query(
        &self,
        query: &[f32],
        positive: &[f32],
        weighted_keys: &[f32],
        sums: &SoftmaxSums,
        gradient: &mut [f32],
    ) -> QueryOutcome {
        let temperature = self.config.temperature;
        let positive_similarity = dot(query, positive);
        let positive_logit = positive_similarity / temperature;
        let difference = sums.log_sum() - positive_logit;
        let (loss, gradient_scale) =
            loss_and_scale(difference, self.config.alpha, self.negative_count);

        let factor = gradient_scale / temperature;
        let count = (self.queries.len() / self.dim) as f64;
        for ((out, &weighted), &key) in gradient.iter_mut().zip(weighted_keys).zip(positive) {
            *out = (factor / count * (f64::from(weighted) / sums.weight - f64::from(key))) as f32;
        }
        let mean_logit = dot(query, weighted_keys) / sums.weight / temperature;
        let hardest = f64::from(sums.largest) * temperature;
        let tie = TIE * positive_similarity.abs().max(hardest.abs());
        QueryOutcome {
            temperature_gradient: factor * (positive_logit - mean_logit),
            statistics: QueryStatistics {
                loss,
                infonce_loss: softplus(difference),
                gradient_scale,
                positive_similarity,
                negative_similarity: sums.logit * temperature / self.negative_count as f64,
                is_top1: positive_similarity > hardest + tie,
            },
        }
    }

    /// Gradient with respect to the keys in their role as positives, `[N, dim]`.
    pub(super) fn positives_gradient(&self, outcome: &Outcome) -> Vec<f32> {
        let rows = self
            .queries
            .chunks_exact(self.dim)
            .zip(&outcome.coefficients);
        rows.flat_map(|(query, c)| query.iter().map(move |q| -c * q))
            .collect()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&x, &y)| f64::from(x) * f64::from(y))
        .sum()
}
