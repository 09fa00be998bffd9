//! Settings of the linear probe and their ranges.

use serde::{Deserialize, Serialize};

use super::GridPoint;
use crate::EvalError;

/// Settings of the linear probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearProbeConfig {
    /// Learning rates to choose from, for inputs of mean squared length 1; finite and above 0.
    pub learning_rates: Vec<f64>,
    /// Weight decays to choose from, each with every learning rate; finite and at least 0.
    pub weight_decays: Vec<f64>,
    /// Share of the old velocity that SGD keeps; at least 0, below 1.
    pub sgd_momentum: f64,
    /// Images per step, at least 1.
    pub batch_size: usize,
    /// Passes over the training features, at least 1.
    pub epochs: usize,
    /// Share of every class that judges the grid; above 0, at most 0.5.
    pub held_out_share: f64,
    /// Chooses the held-out images and the order of the batches.
    pub seed: u64,
}

impl Default for LinearProbeConfig {
    fn default() -> Self {
        Self {
            learning_rates: vec![1.0, 3.0, 10.0, 30.0],
            weight_decays: vec![0.0, 3e-6],
            sgd_momentum: 0.9,
            batch_size: 256,
            epochs: 100,
            held_out_share: 0.1,
            seed: 0,
        }
    }
}

impl LinearProbeConfig {
    /// Every learning rate with every weight decay.
    pub(super) fn grid(&self) -> Vec<GridPoint> {
        let of_rate = |&learning_rate: &f64| {
            let decays = self.weight_decays.iter();
            decays.map(move |&weight_decay| GridPoint {
                learning_rate,
                weight_decay,
            })
        };
        self.learning_rates.iter().flat_map(of_rate).collect()
    }

    /// Whether every setting is in its range: worth asking before the features are made.
    ///
    /// # Errors
    /// [`EvalError::InvalidSetting`] naming the setting and its range.
    pub fn check(&self) -> Result<(), EvalError> {
        let fail =
            |setting, expected: &str, got: String| Err(EvalError::setting(setting, expected, got));
        let positive = |rate: &f64| rate.is_finite() && *rate > 0.0;
        if self.learning_rates.is_empty() || !self.learning_rates.iter().all(positive) {
            let got = format!("{:?}", self.learning_rates);
            return fail("learning_rates", "one or more finite numbers above 0", got);
        }
        let not_negative = |decay: &f64| decay.is_finite() && *decay >= 0.0;
        if self.weight_decays.is_empty() || !self.weight_decays.iter().all(not_negative) {
            let got = format!("{:?}", self.weight_decays);
            return fail(
                "weight_decays",
                "one or more finite numbers of at least 0",
                got,
            );
        }
        if !(0.0..1.0).contains(&self.sgd_momentum) {
            let got = self.sgd_momentum.to_string();
            return fail("sgd_momentum", "a number from 0 to below 1", got);
        }
        if self.batch_size == 0 {
            return fail("batch_size", "at least 1", self.batch_size.to_string());
        }
        if self.epochs == 0 {
            return fail("epochs", "at least 1", self.epochs.to_string());
        }
        if !(self.held_out_share > 0.0 && self.held_out_share <= 0.5) {
            let got = self.held_out_share.to_string();
            return fail("held_out_share", "a number above 0 and at most 0.5", got);
        }
        Ok(())
    }
}
