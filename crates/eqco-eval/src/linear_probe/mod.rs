//! Linear classification on frozen, cached features: the linear probe.

mod config;
mod held_out;
mod softmax_regression;

use serde::{Deserialize, Serialize};

use crate::accuracy::Accuracy;
use crate::{EvalError, FeaturePair, Features, Protocol};

pub use config::LinearProbeConfig;
pub use softmax_regression::GridPoint;
use softmax_regression::SoftmaxRegression;

/// What the held-out images said about one grid point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GridScore {
    /// The setting.
    #[serde(flatten)]
    pub point: GridPoint,
    /// Top-1 on the held-out images in percent.
    pub held_out_top1: f64,
    /// Mean cross-entropy on the held-out images in nats; `None` if it is not finite.
    pub held_out_loss: Option<f64>,
}

/// Outcome of [`linear_probe`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearProbeResult {
    /// Accuracy on the test part of the classifier trained on all training features.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Top-1 of the same classifier on its own training part in percent.
    pub train_top1: f64,
    /// The grid point that the held-out images chose.
    pub chosen: GridPoint,
    /// Images that were held out for the choice.
    pub held_out_count: usize,
    /// What they said about every grid point.
    pub grid: Vec<GridScore>,
    /// Everything needed to repeat the measurement.
    pub protocol: Protocol<LinearProbeConfig>,
}

/// Trains and measures a linear classifier on frozen features.
///
/// # Protocol
/// 1. The features of both parts are standardised with the training part's mean and deviation.
/// 2. A class-balanced tenth of the training part is held out; softmax regression is trained on the
///    rest for every learning rate and weight decay of the grid at the same time.
/// 3. The grid point with the best top-1 on the held-out images (then the lowest loss) is trained
///    anew on **all** training features. Its top-1 on the test part is the result; the test part
///    takes no part in any choice.
///
/// Training is SGD with momentum 0.9 and a cosine schedule from zero weights. Learning rates are
/// meant for inputs of mean squared length 1, so the standardised features are divided by √dim.
///
/// # Where this departs from MoCo's ImageNet protocol, and why
/// MoCo (He et al. 2020, section 4.1) trains the classifier for 100 epochs with learning rate 30,
/// weight decay 0, batch 256, ×0.1 at epochs 60 and 80, on **augmented** crops, so that every epoch
/// passes all images through the encoder again.
/// - We pass every image once, without augmentation, and cache the features: seconds instead of
///   hours, at the price of a few tenths of a point. Compare our figures with each other, not with
///   published ImageNet figures.
/// - Learning rate 30 was found for un-normalised features of one architecture. Features are
///   standardised here and the rate is chosen on held-out images, so that encoders, random weights
///   and raw pixels all meet the best case of their own.
/// - A cosine schedule takes the place of the steps: nothing to tune when the epochs change.
///
/// Runs on the current rayon pool; the result does not depend on its size.
///
/// # Errors
/// [`EvalError::InvalidSetting`] if the configuration is out of range or no class has two training
/// images, [`EvalError::NotFinite`] if standardising leaves the range of f32, and
/// [`EvalError::Diverged`] if no grid point ends with finite weights.
pub fn linear_probe(
    features: &FeaturePair,
    config: &LinearProbeConfig,
) -> Result<LinearProbeResult, EvalError> {
    config.check()?;
    let standardized = features.standardized()?;
    let (train, test) = (standardized.train(), standardized.test());
    let (grid, held_out_count) = judge_grid(train, config)?;
    let chosen = best(&grid).ok_or_else(|| diverged(config))?.point;
    let all_rows = |part: &Features| (0..part.count() as u32).collect::<Vec<u32>>();
    let classifier = SoftmaxRegression::fit(train, &all_rows(train), &[chosen], config);
    let [on_train, on_test] =
        [train, test].map(|part| classifier.predict(part, &all_rows(part)).remove(0));
    if !on_test.loss.is_finite() || !on_train.loss.is_finite() {
        return Err(diverged(config));
    }
    let method = "linear probe: softmax regression on cached, standardised features, one pass \
                  without augmentation (not MoCo's ImageNet protocol)";
    Ok(LinearProbeResult {
        accuracy: Accuracy::of(&on_test.classes, test.labels(), test.class_count()),
        train_top1: on_train.top1,
        chosen,
        held_out_count,
        grid,
        protocol: Protocol::new(method, config, features),
    })
}

/// Trains all grid points on nine tenths (`1 - held_out_share`) of `train` and scores them on the
/// rest; also the number of held-out images.
fn judge_grid(
    train: &Features,
    config: &LinearProbeConfig,
) -> Result<(Vec<GridScore>, usize), EvalError> {
    let parts = held_out::split(
        train.labels(),
        train.class_count(),
        config.held_out_share,
        config.seed,
    );
    if parts.judge.is_empty() {
        let expected = "a class with at least two training images";
        return Err(EvalError::setting("training part", expected, "none"));
    }
    let points = config.grid();
    let models = SoftmaxRegression::fit(train, &parts.fit, &points, config);
    let predictions = models.predict(train, &parts.judge);
    let scores = points
        .into_iter()
        .zip(predictions)
        .map(|(point, predictions)| GridScore {
            point,
            held_out_top1: predictions.top1,
            held_out_loss: predictions.loss.is_finite().then_some(predictions.loss),
        });
    Ok((scores.collect(), parts.judge.len()))
}

/// The best top-1, then the lowest loss, then the first; points that diverged are out.
fn best(grid: &[GridScore]) -> Option<&GridScore> {
    let finite = grid
        .iter()
        .filter_map(|score| Some((score, score.held_out_loss?)));
    let better = finite.min_by(|(a, a_loss), (b, b_loss)| {
        b.held_out_top1
            .total_cmp(&a.held_out_top1)
            .then(a_loss.total_cmp(b_loss))
    });
    better.map(|(score, _)| score)
}

fn diverged(config: &LinearProbeConfig) -> EvalError {
    EvalError::Diverged {
        learning_rates: config.learning_rates.clone(),
    }
}

#[cfg(test)]
mod tests;
