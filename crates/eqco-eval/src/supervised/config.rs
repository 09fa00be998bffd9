//! Settings of supervised training and their ranges.

use eqco_data::recipe::{RecipeConfig, RecipeName};
use eqco_models::optim::{
    LearningRateScaling, OptimizerConfig, ScheduleConfig, ScheduleKind, SgdConfig,
};
use serde::{Deserialize, Serialize};

use crate::EvalError;

/// Bounds that no training reaches and whose products with the number of images stay far below 2^64.
const MOST_EPOCHS: u64 = 1_000_000;
const MOST_STEPS: u64 = 1_000_000_000;

/// Settings of supervised training. Defaults suit tens of thousands of small images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SupervisedConfig {
    /// Passes over the training images, 1 to 1,000,000.
    pub epochs: u64,
    /// At most 1,000,000,000. Training goes on for as many epochs as this many steps need, where `epochs` gives fewer; 0 for `epochs` alone. A
    /// hundredth of a small data set is a few images, whose 30 passes teach nothing.
    pub least_steps: u64,
    /// Images per step, at least 2; all images where there are fewer.
    pub batch_size: usize,
    /// Learning rate at the start of the cosine schedule for a batch of 256; scaled with the batch. Finite and above 0.
    pub learning_rate: f64,
    /// Share of the old velocity that SGD keeps; at least 0, below 1.
    pub sgd_momentum: f64,
    /// Weight decay on all parameters; finite and at least 0.
    pub weight_decay: f64,
    /// Smallest share of an image's area that a random crop shows; above 0, at most 1.
    pub smallest_crop: f64,
    /// Chooses order and crops.
    pub seed: u64,
}

impl Default for SupervisedConfig {
    fn default() -> Self {
        Self {
            epochs: 30,
            least_steps: 500,
            batch_size: 128,
            learning_rate: 0.2,
            sgd_momentum: 0.9,
            weight_decay: 1e-4,
            smallest_crop: 0.2,
            seed: 0,
        }
    }
}

impl SupervisedConfig {
    /// Whether every setting is in its range: worth asking before anything is read.
    ///
    /// # Errors
    /// [`EvalError::InvalidSetting`] naming the setting and its range.
    pub fn check(&self) -> Result<(), EvalError> {
        let fail =
            |setting, expected: &str, got: String| Err(EvalError::setting(setting, expected, got));
        if !(1..=MOST_EPOCHS).contains(&self.epochs) {
            let expected = format!("1 to {MOST_EPOCHS}");
            return fail("epochs", &expected, self.epochs.to_string());
        }
        if self.least_steps > MOST_STEPS {
            let expected = format!("at most {MOST_STEPS}");
            return fail("least_steps", &expected, self.least_steps.to_string());
        }
        if self.batch_size < 2 {
            let expected = "at least 2, since statistics are taken over a batch";
            return fail("batch_size", expected, self.batch_size.to_string());
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return fail(
                "lr",
                "a finite number above 0",
                self.learning_rate.to_string(),
            );
        }
        if !(0.0..1.0).contains(&self.sgd_momentum) {
            let expected = "a number from 0 to below 1";
            return fail("sgd_momentum", expected, self.sgd_momentum.to_string());
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            let expected = "a finite number of at least 0";
            return fail("weight_decay", expected, self.weight_decay.to_string());
        }
        if !(self.smallest_crop > 0.0 && self.smallest_crop <= 1.0) {
            let expected = "a number above 0 and at most 1";
            return fail("smallest_crop", expected, self.smallest_crop.to_string());
        }
        Ok(())
    }

    /// What these settings mean for `count` training images seen at `image_size` pixels.
    ///
    /// # Errors
    /// [`EvalError::InvalidSetting`] if a setting is out of range or there are fewer than 2 images.
    pub(super) fn plan(&self, count: usize, image_size: usize) -> Result<Plan, EvalError> {
        self.check()?;
        if count < 2 {
            let expected = "at least 2 images, since statistics are taken over a batch";
            return Err(EvalError::setting("training part", expected, count));
        }
        let batch_size = self.batch_size.min(count);
        let steps_per_epoch = (count / batch_size) as u64;
        let epochs = self.epochs.max(self.least_steps.div_ceil(steps_per_epoch));
        let recipe = RecipeConfig {
            crop_scale: Some([self.smallest_crop, 1.0]),
            ..RecipeConfig::new(RecipeName::Supervised, image_size)
        };
        Ok(Plan {
            epochs,
            steps: epochs * steps_per_epoch,
            batch_size,
            peak_learning_rate: self.learning_rate * batch_size as f64 / 256.0,
            recipe: recipe.resolved(),
        })
    }

    pub(super) fn optimizer(&self) -> OptimizerConfig {
        OptimizerConfig::Sgd(SgdConfig {
            sgd_momentum: self.sgd_momentum,
            weight_decay: self.weight_decay,
            ..SgdConfig::default()
        })
    }
}

/// What was done after all: part of every result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Passes over the training images.
    pub epochs: u64,
    /// Steps in all.
    pub steps: u64,
    /// Images per step; the rest of an epoch that does not fill a batch is left out, another one each time.
    pub batch_size: usize,
    /// Learning rate of the first step.
    pub peak_learning_rate: f64,
    /// How training images are seen.
    pub recipe: RecipeConfig,
}

impl Plan {
    pub(super) fn schedule(&self) -> ScheduleConfig {
        ScheduleConfig {
            base_learning_rate: self.peak_learning_rate,
            scaling: LearningRateScaling::None,
            warmup_epochs: 0.0,
            kind: ScheduleKind::Cosine,
            epochs: self.epochs,
            ..ScheduleConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_settings_and_images() {
        let config = SupervisedConfig::default();
        let plan = config.plan(50_000, 32).unwrap();
        assert_eq!(
            (plan.epochs, plan.steps, plan.batch_size),
            (30, 30 * 390, 128)
        );
        assert_eq!(plan.peak_learning_rate, 0.1);
        assert_eq!(plan.recipe.crop_scale, Some([0.2, 1.0]));
        // 300 images make two steps an epoch: 500 steps take 250 epochs.
        let plan = config.plan(300, 32).unwrap();
        assert_eq!((plan.epochs, plan.steps), (250, 500));
        // Ten images make one batch.
        let plan = config.plan(10, 32).unwrap();
        assert_eq!((plan.epochs, plan.batch_size), (500, 10));
        let config = SupervisedConfig {
            least_steps: 0,
            ..config
        };
        assert_eq!(config.plan(10, 32).unwrap().steps, 30);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let refused = |change: fn(&mut SupervisedConfig)| {
            let mut config = SupervisedConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert_eq!(
            refused(|c| c.epochs = 0),
            "epochs: expected 1 to 1000000, got 0"
        );
        assert!(refused(|c| c.epochs = u64::MAX).starts_with("epochs: "));
        assert!(refused(|c| c.least_steps = u64::MAX).starts_with("least_steps: "));
        assert!(refused(|c| c.batch_size = 1).starts_with("batch_size: "));
        assert!(refused(|c| c.learning_rate = f64::NAN).ends_with("got NaN"));
        assert!(refused(|c| c.learning_rate = 0.0).starts_with("lr: "));
        assert!(refused(|c| c.sgd_momentum = 1.0).starts_with("sgd_momentum: "));
        assert!(refused(|c| c.weight_decay = -1.0).starts_with("weight_decay: "));
        assert!(refused(|c| c.smallest_crop = 0.0).starts_with("smallest_crop: "));
        let error = SupervisedConfig::default().plan(1, 32).unwrap_err();
        assert!(error.to_string().starts_with("training part: "), "{error}");
    }
}
