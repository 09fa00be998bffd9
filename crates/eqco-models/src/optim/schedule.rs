//! The learning rate of every step: scaling with the batch, linear warm-up, then cosine, steps or a constant.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{ModelError, check_range};

/// How the learning rate grows with the batch size N. (With N, never with the number of negatives: EqCo's margin takes
/// care of those.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearningRateScaling {
    /// base · N / reference (Goyal et al. 2017): MoCo, SiMo, and SimCLR's 0.3 · N / 256.
    #[default]
    Linear,
    /// base · √(N / reference): SimCLR's 0.075 · √N is a base of 0.075 with a reference batch of 1.
    SquareRoot,
    /// base, whatever the batch.
    None,
}

/// The course of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Half a cosine from the peak to 0 at the end of the last epoch, changing with every step.
    #[default]
    Cosine,
    /// The peak, multiplied by `step_factor` at the start of each epoch in `milestones`.
    Step,
    /// The peak.
    Constant,
}

/// A learning-rate schedule; the defaults are SiMo's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Learning rate at `reference_batch`, above 0.
    pub base_learning_rate: f64,
    /// The batch size that `base_learning_rate` is meant for, at least 1.
    pub reference_batch: usize,
    /// How the learning rate grows with the batch size.
    pub scaling: LearningRateScaling,
    /// Length of the linear warm-up; at least 0 and less than `epochs`; may be a fraction.
    pub warmup_epochs: f64,
    /// The course after warm-up.
    pub kind: ScheduleKind,
    /// Epochs, counted from 0 and rising, at whose start the rate falls; for `kind = "step"` only.
    pub milestones: Vec<u64>,
    /// What the rate is multiplied by at a milestone, in `0..=1`; for `kind = "step"` only.
    pub step_factor: f64,
    /// Length of the whole run, at least 1.
    pub epochs: u64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            base_learning_rate: 0.03,
            reference_batch: 256,
            scaling: LearningRateScaling::Linear,
            warmup_epochs: 10.0,
            kind: ScheduleKind::Cosine,
            milestones: Vec::new(),
            step_factor: 0.1,
            epochs: 200,
        }
    }
}

impl ScheduleConfig {
    /// Checks every setting against its range.
    ///
    /// # Errors
    /// [`ModelError::OutOfRange`] or [`ModelError::Conflict`], naming the first setting that is wrong.
    pub fn validate(&self) -> Result<(), ModelError> {
        let (base, warmup, factor) = (
            self.base_learning_rate,
            self.warmup_epochs,
            self.step_factor,
        );
        check_range(
            "base_learning_rate",
            "a finite number above 0",
            base,
            base.is_finite() && base > 0.0,
        )?;
        check_range(
            "reference_batch",
            "at least 1",
            self.reference_batch as f64,
            self.reference_batch > 0,
        )?;
        check_range("epochs", "at least 1", self.epochs as f64, self.epochs > 0)?;
        check_range(
            "step_factor",
            "a number from 0 to 1",
            factor,
            (0.0..=1.0).contains(&factor),
        )?;
        check_range(
            "warmup_epochs",
            "a finite number of at least 0",
            warmup,
            warmup.is_finite() && warmup >= 0.0,
        )?;
        let conflict = |problem| Err(ModelError::Conflict { problem });
        if warmup >= self.epochs as f64 {
            return conflict(format!(
                "warmup_epochs must be less than epochs, got {warmup} of {}",
                self.epochs
            ));
        }
        if self.kind == ScheduleKind::Step && self.milestones.is_empty() {
            return conflict(
                "kind = \"step\" needs at least one epoch in milestones, got none".into(),
            );
        }
        if !self
            .milestones
            .is_sorted_by(|earlier, later| earlier < later)
        {
            return conflict(format!("milestones must rise, got {:?}", self.milestones));
        }
        Ok(())
    }
}

/// A checked [`ScheduleConfig`] for one batch size.
#[derive(Clone, Debug)]
pub struct Schedule {
    config: ScheduleConfig,
    peak: f64,
}

impl Schedule {
    /// The schedule for batches of `batch_size` images.
    ///
    /// # Errors
    /// When a setting is out of range or the batch is empty.
    pub fn new(config: &ScheduleConfig, batch_size: usize) -> Result<Self, ModelError> {
        config.validate()?;
        check_range(
            "batch_size",
            "at least 1",
            batch_size as f64,
            batch_size > 0,
        )?;
        let share = batch_size as f64 / config.reference_batch as f64;
        let scale = match config.scaling {
            LearningRateScaling::Linear => share,
            LearningRateScaling::SquareRoot => share.sqrt(),
            LearningRateScaling::None => 1.0,
        };
        Ok(Self {
            config: config.clone(),
            peak: config.base_learning_rate * scale,
        })
    }

    /// The learning rate at the end of warm-up.
    pub fn peak(&self) -> f64 {
        self.peak
    }

    /// The learning rate of step `step`, counted from 0 over the whole run. Steps past the end keep the last value.
    ///
    /// With S steps an epoch (0 counts as 1), W = `warmup_epochs`·S and T = `epochs`·S: peak·(step+1)/W, at most the peak,
    /// while step < W, so that no step is wasted on a rate of 0; then, for the cosine, peak·(1 + cos(π(step−W)/(T−W)))/2.
    pub fn learning_rate(&self, step: u64, steps_per_epoch: u64) -> f64 {
        let steps_per_epoch = steps_per_epoch.max(1);
        let warmup = self.config.warmup_epochs * steps_per_epoch as f64;
        let position = step as f64;
        if position < warmup {
            return self.peak * ((position + 1.0) / warmup).min(1.0);
        }
        let factor = match self.config.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Cosine => {
                let total = self.config.epochs as f64 * steps_per_epoch as f64;
                half_cosine((position - warmup) / (total - warmup))
            }
            ScheduleKind::Step => {
                let epoch = step / steps_per_epoch;
                let passed = self
                    .config
                    .milestones
                    .iter()
                    .filter(|milestone| **milestone <= epoch)
                    .count();
                self.config.step_factor.powf(passed as f64)
            }
        };
        self.peak * factor
    }
}

/// Falls from 1 to 0 while `progress` goes from 0 to 1, and stays at 0.
fn half_cosine(progress: f64) -> f64 {
    0.5 * (1.0 + (PI * progress.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(edit: impl FnOnce(&mut ScheduleConfig), batch_size: usize) -> Schedule {
        let mut config = ScheduleConfig::default();
        edit(&mut config);
        Schedule::new(&config, batch_size).unwrap()
    }

    fn assert_close(got: f64, expected: f64) {
        assert!(
            (got - expected).abs() <= 1e-12 * expected.abs().max(1e-3),
            "got {got}, expected {expected}"
        );
    }

    #[test]
    fn the_rate_scales_with_the_batch() {
        assert_close(
            schedule(|c| c.scaling = LearningRateScaling::Linear, 1024).peak(),
            0.12,
        );
        assert_close(
            schedule(|c| c.scaling = LearningRateScaling::SquareRoot, 1024).peak(),
            0.06,
        );
        assert_close(
            schedule(|c| c.scaling = LearningRateScaling::None, 1024).peak(),
            0.03,
        );
        // SimCLR's two rules meet its tables: 0.3 · 4096/256 = 4.8, and 0.075 · √4096 = 4.8.
        assert_close(schedule(|c| c.base_learning_rate = 0.3, 4096).peak(), 4.8);
        let square_root = |c: &mut ScheduleConfig| {
            (c.base_learning_rate, c.reference_batch, c.scaling) =
                (0.075, 1, LearningRateScaling::SquareRoot);
        };
        assert_close(schedule(square_root, 4096).peak(), 4.8);
    }

    #[test]
    fn warm_up_is_linear_reaches_the_peak_and_hands_over_to_the_cosine() {
        let schedule = schedule(|_| (), 256);
        let per_epoch = 50;
        for step in 0..500 {
            assert_close(
                schedule.learning_rate(step, per_epoch),
                0.03 * (step + 1) as f64 / 500.0,
            );
        }
        // 10 of 200 epochs are warm-up: quarter, half and three quarters of the remaining 9,500 steps.
        assert_close(schedule.learning_rate(500, per_epoch), 0.03);
        assert_close(
            schedule.learning_rate(500 + 2375, per_epoch),
            0.03 * (1.0 + 0.5f64.sqrt()) / 2.0,
        );
        assert_close(schedule.learning_rate(500 + 4750, per_epoch), 0.015);
        assert_close(
            schedule.learning_rate(500 + 7125, per_epoch),
            0.03 * (1.0 - 0.5f64.sqrt()) / 2.0,
        );
        assert_close(schedule.learning_rate(10_000, per_epoch), 0.0);
        assert_close(schedule.learning_rate(u64::MAX, per_epoch), 0.0);
        let last = schedule.learning_rate(9_999, per_epoch);
        assert!(last > 0.0 && last < 0.03 * 1e-7, "{last}");
    }

    #[test]
    fn a_fractional_warm_up_never_exceeds_the_peak() {
        let schedule = schedule(|c| c.warmup_epochs = 0.25, 256);
        // A quarter of 10 steps is 2.5: 1/2.5, 2/2.5, then the peak instead of 3/2.5.
        let rates: Vec<f64> = (0..3)
            .map(|step| schedule.learning_rate(step, 10))
            .collect();
        assert_close(rates[0], 0.012);
        assert_close(rates[1], 0.024);
        assert_close(rates[2], 0.03);
        assert!(schedule.learning_rate(3, 10) < 0.03);
    }

    #[test]
    fn milestones_take_effect_at_the_start_of_their_epoch() {
        let linear_protocol = |c: &mut ScheduleConfig| {
            (c.base_learning_rate, c.warmup_epochs, c.kind) = (30.0, 0.0, ScheduleKind::Step);
            (c.milestones, c.epochs) = (vec![60, 80], 100);
        };
        let schedule = schedule(linear_protocol, 256);
        for (step, expected) in [
            (0, 30.0),
            (419, 30.0),
            (420, 3.0),
            (559, 3.0),
            (560, 0.3),
            (699, 0.3),
            (9999, 0.3),
        ] {
            assert_close(schedule.learning_rate(step, 7), expected);
        }
    }

    #[test]
    fn a_constant_stays_constant_after_warm_up() {
        let schedule = schedule(
            |c| (c.kind, c.warmup_epochs) = (ScheduleKind::Constant, 1.0),
            128,
        );
        assert_close(schedule.learning_rate(0, 4), 0.015 / 4.0);
        for step in [3, 4, 100, 1_000_000] {
            assert_close(schedule.learning_rate(step, 4), 0.015);
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let refused = |edit: fn(&mut ScheduleConfig)| {
            let mut config = ScheduleConfig::default();
            edit(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(refused(|c| c.base_learning_rate = f64::NAN).contains("base_learning_rate"));
        assert!(refused(|c| c.reference_batch = 0).contains("reference_batch"));
        assert!(refused(|c| c.step_factor = 1.5).contains("step_factor"));
        assert!(refused(|c| c.epochs = 0).contains("epochs"));
        assert!(
            refused(|c| c.epochs = 10)
                .contains("warmup_epochs must be less than epochs, got 10 of 10")
        );
        assert!(refused(|c| c.kind = ScheduleKind::Step).contains("milestones"));
        assert!(refused(|c| c.milestones = vec![80, 60]).contains("[80, 60]"));
        assert!(
            Schedule::new(&ScheduleConfig::default(), 0)
                .unwrap_err()
                .to_string()
                .contains("batch_size")
        );
    }

    #[test]
    fn unknown_keys_are_errors_and_the_rest_has_defaults() {
        let config: ScheduleConfig = serde_json::from_str(
            r#"{"kind": "step", "scaling": "square_root", "milestones": [3]}"#,
        )
        .unwrap();
        let expected = ScheduleConfig {
            kind: ScheduleKind::Step,
            scaling: LearningRateScaling::SquareRoot,
            milestones: vec![3],
            ..ScheduleConfig::default()
        };
        assert_eq!(config, expected);
        let error = serde_json::from_str::<ScheduleConfig>(r#"{"warmup": 3}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("warmup_epochs"), "{error}");
    }
}
