//! SimCLR's loss: both views are queries, and everything else in the batch is a negative.

use candle_core::Tensor;

use super::checks::{self, Home};
use super::outcome::Pairs;
use super::rows::{self, Rows};
use super::shared::{Exclusion, SharedNegatives};
use super::{LossOutput, autograd};
use crate::error::LossError;
use crate::margin::LossConfig;

/// NT-Xent (arXiv 2002.05709, equation 1) with the margin rule, value and gradients at once.
///
/// Both views are `[N, D]`, f32 or bf16, unit rows, on the CPU. Each of the `2N` rows is a query; its
/// positive is the same image in the other view, its `K = 2N - 2` negatives are all other rows. The
/// loss is the mean over the `2N` rows, and gradients flow through both branches:
/// [`LossOutput::queries_gradient`] belongs to the first view, [`LossOutput::keys_gradient`] to the
/// second. With [`Alpha::Infonce`](crate::Alpha::Infonce) this is plain NT-Xent; SimCLR's own code
/// reports twice this value (the sum of two directions).
///
/// # Errors
/// [`LossError::NoNegatives`] for a single image; [`LossError::Shape`], [`LossError::Dtype`],
/// [`LossError::Device`] for views that do not fit; the errors of [`LossConfig::validate`].
pub fn nt_xent(
    config: &LossConfig,
    first_view: &Tensor,
    second_view: &Tensor,
) -> Result<LossOutput, LossError> {
    config.validate()?;
    checks::views(Home::Cpu, first_view, second_view)?;
    let (half, dim) = first_view.dims2()?;
    let first = rows::to_f32(first_view)?;
    let second = rows::to_f32(second_view)?;
    let embeddings = [&first[..], &second[..]].concat();
    let partners = [second, first].concat();

    let problem = SharedNegatives {
        queries: &embeddings,
        negatives: Rows::F32(&embeddings),
        dim,
        inverse_temperature: (1.0 / config.temperature) as f32,
        exclusion: Exclusion::SelfAndPartner { half },
    };
    let sweep = problem.sweep();
    let pairs = Pairs {
        queries: &embeddings,
        positives: &partners,
        dim,
        negative_count: 2 * half - 2,
        config,
    };
    let outcome = pairs.finish(&sweep);

    // A row acts as a query, as its partner's positive and as everybody else's negative.
    let as_positive = pairs.positives_gradient(&outcome);
    let mut gradient = problem.negatives_gradient(&sweep, &outcome.coefficients);
    let (query_rows, partner_rows) = (&outcome.queries_gradient, as_positive.split_at(half * dim));
    let partner_rows = partner_rows.1.iter().chain(partner_rows.0);
    for ((sum, query), positive) in gradient.iter_mut().zip(query_rows).zip(partner_rows) {
        *sum += query + positive;
    }
    let second_gradient = gradient.split_off(half * dim);
    Ok(LossOutput {
        loss: outcome.statistics.loss,
        queries_gradient: rows::gradient_of(first_view, gradient)?,
        keys_gradient: Some(rows::gradient_of(second_view, second_gradient)?),
        negatives_gradient: None,
        temperature_gradient: outcome.temperature_gradient,
        statistics: outcome.statistics,
    })
}

/// [`nt_xent`] as a scalar f32 tensor that candle's `backward` can follow into both views, which are on the CPU;
/// [`nt_xent_forward_on`](crate::nt_xent_forward_on) takes those of a GPU.
///
/// # Errors
/// As [`nt_xent`].
pub fn nt_xent_forward(
    config: &LossConfig,
    first_view: &Tensor,
    second_view: &Tensor,
) -> Result<Tensor, LossError> {
    let output = nt_xent(config, first_view, second_view)?;
    autograd::of_two(output, first_view, second_view)
}
