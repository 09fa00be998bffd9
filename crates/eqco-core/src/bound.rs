//! What a loss value says about mutual information, and the statistics of a batch.
//!
//! The paper (arXiv 2010.01929, section 3.1) states `I(query; key) >= ln(1 + alpha) - L`. For a
//! finite number of negatives and any encoder that holds only up to `alpha = K`: with K = 1 and
//! alpha = 65,536 there are distributions of 0.253 nats for which it claims 0.584. Both are reported
//! and neither is called by the other's name.

use serde::Serialize;

use crate::margin::{Alpha, LossConfig};

/// A lower bound on the mutual information of query and key in nats, true for every encoder:
/// `ln(1 + min(alpha, K)) - loss`.
///
/// `loss` is the mean loss at this `alpha`. Up to `alpha = K` the bound is InfoNCE's (van den Oord
/// et al., arXiv 1807.03748) in its general form. Above, the loss is at least that of `alpha = K`, so
/// the bound stays true and only grows looser. It is meaningless for [`Alpha::Decoupled`], whose loss
/// has lost its constant; there, pass InfoNCE's loss and [`Alpha::Infonce`], as
/// [`BatchStatistics::guaranteed_bound`] does.
pub fn guaranteed_bound(loss: f64, alpha: Alpha, negative_count: usize) -> f64 {
    alpha
        .value(negative_count)
        .min(negative_count as f64)
        .ln_1p()
        - loss
}

/// The bound as the paper states it, `ln(1 + alpha) - loss` in nats.
///
/// For `alpha > K` it can exceed the mutual information. For [`Alpha::Decoupled`] it is the limit for
/// alpha to infinity, `ln(K) - loss`, where `loss` is DCL's.
pub fn paper_bound(loss: f64, alpha: Alpha, negative_count: usize) -> f64 {
    chance_loss(alpha, negative_count) - loss
}

/// The loss in nats when all similarities are equal, as before training: `ln(1 + alpha)` whatever the number of
/// negatives, and `ln(K)` for [`Alpha::Decoupled`]. A loss that stays there has learnt nothing.
pub fn chance_loss(alpha: Alpha, negative_count: usize) -> f64 {
    match alpha {
        Alpha::Decoupled => (negative_count as f64).ln(),
        finite => finite.value(negative_count).ln_1p(),
    }
}

/// What one batch tells about the state of training. All values are means over the queries unless
/// they say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BatchStatistics {
    /// The loss in nats.
    pub loss: f64,
    /// Share of queries, 0 to 1, whose positive key is more similar than every negative, without
    /// margin. A tie within rounding counts as a miss, so that a collapsed encoder scores 0.
    pub contrast_top1: f64,
    /// Dot product of query and positive key (the cosine, for unit vectors).
    pub positive_similarity: f64,
    /// Dot product of query and negative, over all negatives.
    pub negative_similarity: f64,
    /// The scalar `g` that multiplies the query's whole gradient, 0 to 1: one minus the probability
    /// that the loss gives to the positive. Always 1 for DCL.
    pub gradient_scale: f64,
    /// Standard deviation of `g` over the queries of the batch (division by N).
    pub gradient_scale_deviation: f64,
    /// [`guaranteed_bound`] of this batch; for DCL that of InfoNCE on the same similarities.
    pub guaranteed_bound: f64,
    /// [`paper_bound`] of this batch.
    pub paper_bound: f64,
}

/// What one query contributes to [`BatchStatistics`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryStatistics {
    pub loss: f64,
    pub infonce_loss: f64,
    pub gradient_scale: f64,
    pub positive_similarity: f64,
    pub negative_similarity: f64,
    pub is_top1: bool,
}

/// Means of [`QueryStatistics`] over the queries of a batch, and the deviation of the gradient's scale.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryMeans {
    pub loss: f64,
    pub infonce_loss: f64,
    pub gradient_scale: f64,
    pub gradient_scale_deviation: f64,
    pub positive_similarity: f64,
    pub negative_similarity: f64,
    pub contrast_top1: f64,
}

impl BatchStatistics {
    /// The statistics of a batch from those of its parts of equal size, at least one.
    ///
    /// Every value is that of the whole batch up to rounding: means are averaged, and the deviation follows from the
    /// second moments.
    ///
    /// # Panics
    /// If there is no part.
    #[must_use]
    pub fn of_equal_parts(parts: &[Self]) -> Self {
        assert!(!parts.is_empty(), "a batch has at least one part");
        let count = parts.len() as f64;
        let mean = |value: fn(&Self) -> f64| parts.iter().map(value).sum::<f64>() / count;
        let gradient_scale = mean(|part| part.gradient_scale);
        let second_moment =
            mean(|part| part.gradient_scale_deviation.powi(2) + part.gradient_scale.powi(2));
        Self {
            loss: mean(|part| part.loss),
            contrast_top1: mean(|part| part.contrast_top1),
            positive_similarity: mean(|part| part.positive_similarity),
            negative_similarity: mean(|part| part.negative_similarity),
            gradient_scale,
            gradient_scale_deviation: (second_moment - gradient_scale.powi(2)).max(0.0).sqrt(),
            guaranteed_bound: mean(|part| part.guaranteed_bound),
            paper_bound: mean(|part| part.paper_bound),
        }
    }

    pub(crate) fn new(
        queries: &[QueryStatistics],
        config: &LossConfig,
        negative_count: usize,
    ) -> Self {
        let count = queries.len() as f64;
        let mean =
            |value: fn(&QueryStatistics) -> f64| queries.iter().map(value).sum::<f64>() / count;
        let gradient_scale = mean(|q| q.gradient_scale);
        let squares = queries
            .iter()
            .map(|q| (q.gradient_scale - gradient_scale).powi(2));
        let means = QueryMeans {
            loss: mean(|q| q.loss),
            infonce_loss: mean(|q| q.infonce_loss),
            gradient_scale,
            gradient_scale_deviation: (squares.sum::<f64>() / count).sqrt(),
            positive_similarity: mean(|q| q.positive_similarity),
            negative_similarity: mean(|q| q.negative_similarity),
            contrast_top1: mean(|q| f64::from(u8::from(q.is_top1))),
        };
        Self::of_means(&means, config, negative_count)
    }

    pub(crate) fn of_means(means: &QueryMeans, config: &LossConfig, negative_count: usize) -> Self {
        let guaranteed = match config.alpha {
            Alpha::Decoupled => {
                guaranteed_bound(means.infonce_loss, Alpha::Infonce, negative_count)
            }
            finite => guaranteed_bound(means.loss, finite, negative_count),
        };
        Self {
            loss: means.loss,
            contrast_top1: means.contrast_top1,
            positive_similarity: means.positive_similarity,
            negative_similarity: means.negative_similarity,
            gradient_scale: means.gradient_scale,
            gradient_scale_deviation: means.gradient_scale_deviation,
            guaranteed_bound: guaranteed,
            paper_bound: paper_bound(means.loss, config.alpha, negative_count),
        }
    }
}
