//! The loss of a trained encoder at other numbers of negatives: what EqCo promises to stay, and by how much it does not.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use eqco_core::{
    Alpha, BatchStatistics, ContrastiveLoss, DrawKind, LossConfig, NegativeDraw, Negatives,
    WantedGradients,
};
use eqco_data::Dataset;
use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::Recipe;
use eqco_models::Encoder;
use eqco_models::backend::Backend;
use eqco_models::tape::Mode;
use serde::Serialize;

use crate::EvalError;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContrastConfig {
    /// Negatives per query, each at least 1 and below `batch_size`.
    pub negative_counts: Vec<usize>,
    /// Temperature and alpha; alpha a number, for DCL has no scale to keep.
    pub loss: LossConfig,
    /// Images of a batch, whose statistics batch norm uses as in training.
    pub batch_size: usize,
    /// Batches, taken from the beginning of the data set.
    pub batches: usize,
    /// Draws of negatives for each batch and count.
    pub draws: u64,
    /// Seed of views and draws.
    pub seed: u64,
}

/// Loss and gradient scale at one number of negatives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AtCount {
    /// Negatives per query, K.
    pub negative_count: usize,
    /// Mean loss in nats.
    pub loss: f64,
    /// Standard error of the mean over draws, in nats; images are the same for all counts.
    pub loss_error: f64,
    /// By how much theory expects the loss to lie below that with all other keys, in nats, see [`contrast`].
    pub expected_loss_gap: f64,
    /// Mean gradient scale g, 0 to 1.
    pub gradient_scale: f64,
    /// Standard error of the mean over draws.
    pub gradient_scale_error: f64,
    /// The same gap for the gradient scale.
    pub expected_gradient_scale_gap: f64,
    /// Deviation of g over the queries of a batch.
    pub gradient_scale_deviation: f64,
}

/// What [`contrast`] finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContrastResult {
    /// One entry a count, in the order asked for.
    pub at_counts: Vec<AtCount>,
    /// With all other keys of the batch as negatives, which needs no draw.
    pub with_all: AtCount,
    /// Images that were used.
    pub images: usize,
    /// What was measured.
    pub config: ContrastConfig,
}

/// Contrasts two views of images of `dataset`, made by `recipe`, as SiMo does, once for each number of negatives: queries by
/// `encoder`, keys by `momentum_encoder`, both with batch statistics and unchanged. Both encoders are on one device, where the
/// loss is computed as well.
///
/// At fixed alpha the loss of a query is `ln(1 + c x)`, x the mean of `exp(s_i)` over K drawn negatives: concave, so that
/// its expectation rises with K to the value for all M other keys. To second order it lies below that by
/// `½ g² v (1/K - 1/M)`, and g by `g² (1 - g) v (1/K - 1/M)`, where v is the squared coefficient of variation of
/// `exp(s_i)`. Both are computed for every query and reported beside the measured values; they hold where they are small.
///
/// # Errors
/// [`EvalError::InvalidSetting`] for counts that a batch cannot have, and those of reading images and of the encoders.
pub fn contrast(
    encoder: &Encoder,
    momentum_encoder: &Encoder,
    dataset: Arc<dyn Dataset>,
    recipe: &Recipe,
    config: &ContrastConfig,
) -> Result<ContrastResult, EvalError> {
    config.check()?;
    let loss = ContrastiveLoss::new(config.loss).map_err(candle_core::Error::from)?;
    let side = recipe.config().image_size;
    let settings = LoaderConfig {
        batch_size: config.batch_size,
        workers: 1,
        shuffle: true,
        seed: config.seed,
        ..LoaderConfig::default()
    };
    let loader = Loader::new(dataset, vec![recipe.clone(), recipe.clone()], settings)?;
    let mut sums = vec![Sums::default(); config.negative_counts.len()];
    let (mut all, mut batches) = (Sums::default(), 0u64);
    for batch in loader.epoch(0, 0).take(config.batches) {
        let batch = batch?;
        let embed = |encoder: &Encoder, pixels: &[u8]| {
            let images = encoder.upload(pixels, side)?;
            encoder
                .embed(&mut encoder.tape(Mode::Preview), &images)?
                .to_tensor()
        };
        let queries = embed(encoder, &batch.views()?[0])?;
        let keys = embed(momentum_encoder, &batch.views()?[1])?;
        let everything =
            NegativeDraw::all_others(config.batch_size).map_err(candle_core::Error::from)?;
        let evaluate =
            |draw: &NegativeDraw| evaluate(&loss, encoder.backend(), (&queries, &keys), draw);
        all.add(&evaluate(&everything)?);
        for (&count, sums) in config.negative_counts.iter().zip(&mut sums) {
            for draw in 0..config.draws {
                let step = batches * config.draws + draw;
                let kind = DrawKind::PerQuery;
                let drawn = NegativeDraw::sample(kind, config.batch_size, count, config.seed, step);
                let drawn = drawn.map_err(candle_core::Error::from)?;
                sums.add(&evaluate(&drawn)?);
            }
            sums.add_expected(&queries, &keys, &config.loss, count)?;
        }
        batches += 1;
    }
    let at_count = |(count, sums): (&usize, &Sums)| sums.finish(*count, config.draws, batches);
    Ok(ContrastResult {
        at_counts: config
            .negative_counts
            .iter()
            .zip(&sums)
            .map(at_count)
            .collect(),
        with_all: all.finish(config.batch_size - 1, 1, batches),
        images: batches as usize * config.batch_size,
        config: config.clone(),
    })
}

impl ContrastConfig {
    fn check(&self) -> Result<(), EvalError> {
        let largest = self.batch_size.saturating_sub(1);
        let possible = 1..=largest;
        if let Some(count) = self
            .negative_counts
            .iter()
            .find(|count| !possible.contains(count))
        {
            let expected = format!("1 to {largest}, one less than the batch");
            return Err(EvalError::setting("negatives", expected, count));
        }
        if !matches!(self.loss.alpha, Alpha::Equivalent(_)) {
            return Err(EvalError::setting("alpha", "a number", self.loss.alpha));
        }
        if self.batches == 0 || self.draws == 0 {
            return Err(EvalError::setting("batches and draws", "at least 1", 0));
        }
        Ok(())
    }
}

/// The statistics of the loss by the kernels that made the embeddings, where these lie.
fn evaluate(
    loss: &ContrastiveLoss,
    backend: &Backend,
    (queries, keys): (&Tensor, &Tensor),
    draw: &NegativeDraw,
) -> Result<BatchStatistics, EvalError> {
    let (negatives, wanted) = (Negatives::InBatch(draw), WantedGradients::QUERIES);
    let output = match backend {
        Backend::Cuda(cuda) => loss.evaluate_on(cuda.queue(), queries, keys, negatives, wanted),
        Backend::Portable | Backend::Onednn(_) => loss.evaluate(queries, keys, negatives, wanted),
    };
    Ok(output.map_err(candle_core::Error::from)?.statistics)
}

/// Sums over draws and batches.
#[derive(Clone, Debug, Default)]
struct Sums {
    losses: Vec<f64>,
    scales: Vec<f64>,
    deviation: f64,
    expected_loss_gap: f64,
    expected_scale_gap: f64,
}

impl Sums {
    fn add(&mut self, statistics: &BatchStatistics) {
        self.losses.push(statistics.loss);
        self.scales.push(statistics.gradient_scale);
        self.deviation += statistics.gradient_scale_deviation;
    }

    /// Adds the gaps that the second order expects, means over the queries of a batch, computed in host memory.
    fn add_expected(
        &mut self,
        queries: &Tensor,
        keys: &Tensor,
        loss: &LossConfig,
        negative_count: usize,
    ) -> Result<(), EvalError> {
        let [queries, keys] = [queries, keys].map(|rows| rows.to_device(&Device::Cpu));
        let (queries, keys) = (queries?, keys?);
        let logits = (queries.matmul(&keys.t()?)? / loss.temperature)?.to_vec2::<f32>()?;
        let others = (logits.len() - 1) as f64;
        // The finite number of keys makes the mean of all of them exact.
        let share = 1.0 / negative_count as f64 - 1.0 / others;
        let (mut of_loss, mut of_scale) = (0.0, 0.0);
        for (query, row) in logits.iter().enumerate() {
            let negatives = row.iter().enumerate().filter(|(key, _)| *key != query);
            let weights: Vec<f64> = negatives
                .map(|(_, &logit)| f64::from(logit).exp())
                .collect();
            let mean = weights.iter().sum::<f64>() / others;
            let variance = weights
                .iter()
                .map(|weight| (weight - mean).powi(2))
                .sum::<f64>()
                / (others - 1.0);
            let odds = loss.alpha.value(negative_count) * mean / f64::from(row[query]).exp();
            let scale = odds / (1.0 + odds);
            let spread = variance / mean.powi(2) * share;
            of_loss += 0.5 * scale.powi(2) * spread;
            of_scale += scale.powi(2) * (1.0 - scale) * spread;
        }
        self.expected_loss_gap += of_loss / logits.len() as f64;
        self.expected_scale_gap += of_scale / logits.len() as f64;
        Ok(())
    }

    fn finish(&self, negative_count: usize, draws: u64, batches: u64) -> AtCount {
        let (loss, loss_error) = mean_over_draws(&self.losses, draws as usize);
        let (gradient_scale, gradient_scale_error) = mean_over_draws(&self.scales, draws as usize);
        AtCount {
            negative_count,
            loss,
            loss_error,
            expected_loss_gap: self.expected_loss_gap / batches as f64,
            gradient_scale,
            gradient_scale_error,
            expected_gradient_scale_gap: self.expected_scale_gap / batches as f64,
            gradient_scale_deviation: self.deviation / self.losses.len() as f64,
        }
    }
}

/// The mean of values that come in groups of `draws`, one group a batch, and its standard error over draws alone.
fn mean_over_draws(values: &[f64], draws: usize) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares = values.chunks_exact(draws).map(|group| {
        let mean = group.iter().sum::<f64>() / draws as f64;
        group
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
    });
    let freedom = (values.len() - values.len() / draws).max(1) as f64;
    (
        mean,
        (squares.sum::<f64>() / freedom / values.len() as f64).sqrt(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit vectors in a plane, at random angles.
    fn rows(count: usize, seed: u32) -> Tensor {
        let angle = |place: u32| {
            let hash = (place + seed * 7919).wrapping_mul(2_654_435_761) >> 8;
            hash as f32 / (1 << 24) as f32 * std::f32::consts::TAU
        };
        let values: Vec<f32> = (0..count as u32)
            .flat_map(|place| [angle(place).cos(), angle(place).sin()])
            .collect();
        Tensor::from_vec(values, (count, 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_second_order_is_what_many_draws_find() {
        let (queries, keys) = (rows(64, 1), rows(64, 2));
        let config = LossConfig {
            temperature: 1.0,
            alpha: Alpha::Equivalent(32.0),
        };
        let loss = ContrastiveLoss::new(config).unwrap();
        let mut all = Sums::default();
        all.add(
            &evaluate(
                &loss,
                &Backend::Portable,
                (&queries, &keys),
                &NegativeDraw::all_others(64).unwrap(),
            )
            .unwrap(),
        );
        let all = all.finish(63, 1, 1);
        for count in [8, 32] {
            let mut sums = Sums::default();
            for step in 0..400 {
                let draw = NegativeDraw::sample(DrawKind::PerQuery, 64, count, 5, step).unwrap();
                let embeddings = (&queries, &keys);
                sums.add(&evaluate(&loss, &Backend::Portable, embeddings, &draw).unwrap());
            }
            sums.add_expected(&queries, &keys, &config, count).unwrap();
            let found = sums.finish(count, 400, 1);
            let loss_gap = all.loss - found.loss;
            let tolerance = 4.0 * found.loss_error + 0.1 * found.expected_loss_gap;
            assert!(
                (loss_gap - found.expected_loss_gap).abs() < tolerance,
                "{found:?} {all:?}"
            );
            let scale_gap = all.gradient_scale - found.gradient_scale;
            let tolerance =
                4.0 * found.gradient_scale_error + 0.1 * found.expected_gradient_scale_gap;
            assert!(
                (scale_gap - found.expected_gradient_scale_gap).abs() < tolerance,
                "{found:?} {all:?}"
            );
        }
    }

    #[test]
    fn errors_are_over_draws_and_not_over_batches() {
        // Two batches that differ by 10, two draws each that differ by 2.
        let (mean, error) = mean_over_draws(&[1.0, 3.0, 11.0, 13.0], 2);
        // Sum of squares 4 over 2 degrees of freedom, by 4 values.
        assert_eq!((mean, error), (7.0, (2.0f64 / 4.0).sqrt()));
    }
}
