//! The course of the momentum encoder's coefficient.

use serde::{Deserialize, Serialize};

use super::schedule::half_cosine;
use crate::error::{ModelError, check_range};

/// How the coefficient changes over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmaKind {
    /// Always `ema_coefficient`: MoCo and SiMo.
    #[default]
    Constant,
    /// From `ema_coefficient` to 1 along half a cosine: BYOL (Grill et al. 2020, section 3.2).
    Cosine,
}

/// The momentum encoder's coefficient; the default is MoCo's and SiMo's constant 0.999.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmaConfig {
    /// Share of the old weights that a step keeps, in `0..=1`; at the start of the run if it changes.
    pub ema_coefficient: f64,
    /// How it changes.
    pub kind: EmaKind,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self {
            ema_coefficient: 0.999,
            kind: EmaKind::Constant,
        }
    }
}

/// A checked [`EmaConfig`].
#[derive(Clone, Copy, Debug)]
pub struct EmaSchedule {
    config: EmaConfig,
}

impl EmaSchedule {
    /// The schedule.
    ///
    /// # Errors
    /// When the coefficient is out of range.
    pub fn new(config: &EmaConfig) -> Result<Self, ModelError> {
        let got = config.ema_coefficient;
        check_range(
            "ema_coefficient",
            "a number from 0 to 1",
            got,
            (0.0..=1.0).contains(&got),
        )?;
        Ok(Self { config: *config })
    }

    /// The coefficient of step `step` (from 0) of `total_steps` (0 counts as 1):
    /// `ema_coefficient`, or 1 − (1 − `ema_coefficient`)·(1 + cos(π·step/`total_steps`))/2.
    pub fn ema_coefficient(&self, step: u64, total_steps: u64) -> f64 {
        match self.config.kind {
            EmaKind::Constant => self.config.ema_coefficient,
            EmaKind::Cosine => {
                let progress = step as f64 / total_steps.max(1) as f64;
                1.0 - (1.0 - self.config.ema_coefficient) * half_cosine(progress)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_has_its_closed_form_and_ends_at_one() {
        let schedule = EmaSchedule::new(&EmaConfig {
            ema_coefficient: 0.996,
            kind: EmaKind::Cosine,
        })
        .unwrap();
        let quarter = 1.0 - 0.004 * (1.0 + 0.5f64.sqrt()) / 2.0;
        for (step, expected) in [
            (0, 0.996),
            (25, quarter),
            (50, 0.998),
            (100, 1.0),
            (1000, 1.0),
        ] {
            let got = schedule.ema_coefficient(step, 100);
            assert!((got - expected).abs() < 1e-15, "step {step}: {got}");
        }
    }

    #[test]
    fn the_constant_does_not_move_and_the_range_is_checked() {
        let schedule = EmaSchedule::new(&EmaConfig::default()).unwrap();
        assert_eq!(schedule.ema_coefficient(0, 10), 0.999);
        assert_eq!(schedule.ema_coefficient(10, 10), 0.999);
        for refused in [-0.1, 1.1, f64::NAN] {
            let config = EmaConfig {
                ema_coefficient: refused,
                kind: EmaKind::Constant,
            };
            assert!(
                EmaSchedule::new(&config)
                    .unwrap_err()
                    .to_string()
                    .contains("ema_coefficient")
            );
        }
    }
}
