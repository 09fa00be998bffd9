//! Which optimiser to use, and its hyper-parameters.

use serde::{Deserialize, Serialize};

use crate::error::{ModelError, check_range};
use crate::params::ParameterRole;

/// An optimiser with its hyper-parameters; in a file, `name = "sgd" | "lars" | "adamw"` beside the keys of that optimiser.
/// A key that is left out has the default stated with it; a key of another optimiser is an error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum OptimizerConfig {
    /// Stochastic gradient descent with momentum: MoCo, SiMo, DCL.
    Sgd(SgdConfig),
    /// Layer-wise adaptive rate scaling: SimCLR's large batches.
    Lars(LarsConfig),
    /// Adam with decoupled weight decay.
    #[serde(rename = "adamw")]
    AdamW(AdamWConfig),
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::Sgd(SgdConfig::default())
    }
}

/// Hyper-parameters of [`OptimizerConfig::Sgd`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SgdConfig {
    /// Share of the old velocity that is kept, in `0..1`; 0.9 in all the papers.
    pub sgd_momentum: f64,
    /// Added to the gradient as this multiple of the weight (L2 regularisation), at least 0; 1e-4 in MoCo and SiMo.
    pub weight_decay: f64,
    /// Nesterov's momentum in PyTorch's form; needs `sgd_momentum` above 0.
    pub nesterov: bool,
    /// Whether biases and normalisation parameters go without weight decay. MoCo and SiMo decay everything.
    pub exclude_norm_and_bias_from_weight_decay: bool,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self {
            sgd_momentum: 0.9,
            weight_decay: 1e-4,
            nesterov: false,
            exclude_norm_and_bias_from_weight_decay: false,
        }
    }
}

/// Hyper-parameters of [`OptimizerConfig::Lars`]; the defaults are those of SimCLR's code.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LarsConfig {
    /// Share of the old velocity that is kept, in `0..1`.
    pub sgd_momentum: f64,
    /// Added to the gradient as this multiple of the weight, at least 0.
    pub weight_decay: f64,
    /// η: length of a step relative to the length of the weight, at a learning rate of 1; above 0.
    pub trust_coefficient: f64,
    /// Whether biases and normalisation parameters go without weight decay.
    pub exclude_norm_and_bias_from_weight_decay: bool,
    /// Whether biases and normalisation parameters take the learning rate as it is, not scaled by layer.
    pub exclude_norm_and_bias_from_scaling: bool,
}

impl Default for LarsConfig {
    fn default() -> Self {
        Self {
            sgd_momentum: 0.9,
            weight_decay: 1e-4,
            trust_coefficient: 0.001,
            exclude_norm_and_bias_from_weight_decay: true,
            exclude_norm_and_bias_from_scaling: true,
        }
    }
}

/// Hyper-parameters of [`OptimizerConfig::AdamW`]; the defaults are those of `torch.optim.AdamW`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Shares of the old first and second moment that are kept, each in `0..1`.
    pub betas: [f64; 2],
    /// Added to the root of the second moment, above 0.
    pub eps: f64,
    /// Share of the weight that a step at a learning rate of 1 takes off, at least 0.
    pub weight_decay: f64,
    /// Whether biases and normalisation parameters go without weight decay.
    pub exclude_norm_and_bias_from_weight_decay: bool,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 1e-2,
            exclude_norm_and_bias_from_weight_decay: false,
        }
    }
}

impl OptimizerConfig {
    /// Checks every hyper-parameter against its range.
    ///
    /// # Errors
    /// [`ModelError::OutOfRange`] or [`ModelError::Conflict`], naming the first setting that is wrong.
    pub fn validate(&self) -> Result<(), ModelError> {
        check_weight_decay(self.weight_decay())?;
        match self {
            Self::Sgd(sgd) => {
                check_momentum(sgd.sgd_momentum)?;
                if sgd.nesterov && sgd.sgd_momentum == 0.0 {
                    let problem = "nesterov = true needs sgd_momentum above 0, got 0".to_string();
                    return Err(ModelError::Conflict { problem });
                }
                Ok(())
            }
            Self::Lars(lars) => {
                check_momentum(lars.sgd_momentum)?;
                let trust = lars.trust_coefficient;
                check_range(
                    "trust_coefficient",
                    "a finite number above 0",
                    trust,
                    trust.is_finite() && trust > 0.0,
                )
            }
            Self::AdamW(adamw) => {
                for beta in adamw.betas {
                    check_range(
                        "betas",
                        "two numbers from 0 to below 1",
                        beta,
                        (0.0..1.0).contains(&beta),
                    )?;
                }
                check_range(
                    "eps",
                    "a finite number above 0",
                    adamw.eps,
                    adamw.eps.is_finite() && adamw.eps > 0.0,
                )
            }
        }
    }

    /// The weight decay that a parameter of this role gets.
    pub fn weight_decay_of(&self, role: ParameterRole) -> f64 {
        let exclude = match self {
            Self::Sgd(sgd) => sgd.exclude_norm_and_bias_from_weight_decay,
            Self::Lars(lars) => lars.exclude_norm_and_bias_from_weight_decay,
            Self::AdamW(adamw) => adamw.exclude_norm_and_bias_from_weight_decay,
        };
        if exclude && role.is_excluded_by_convention() {
            0.0
        } else {
            self.weight_decay()
        }
    }

    /// What the optimiser remembers of each parameter, in the order in which it keeps it.
    pub(super) fn memory_names(&self) -> &'static [&'static str] {
        match self {
            Self::Sgd(_) | Self::Lars(_) => &["velocity"],
            Self::AdamW(_) => &["first_moment", "second_moment"],
        }
    }

    fn weight_decay(&self) -> f64 {
        match self {
            Self::Sgd(sgd) => sgd.weight_decay,
            Self::Lars(lars) => lars.weight_decay,
            Self::AdamW(adamw) => adamw.weight_decay,
        }
    }
}

fn check_momentum(got: f64) -> Result<(), ModelError> {
    check_range(
        "sgd_momentum",
        "a number from 0 to below 1",
        got,
        (0.0..1.0).contains(&got),
    )
}

fn check_weight_decay(got: f64) -> Result<(), ModelError> {
    check_range(
        "weight_decay",
        "a finite number of at least 0",
        got,
        got.is_finite() && got >= 0.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<OptimizerConfig, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn missing_keys_take_the_papers_values_and_foreign_keys_are_refused() {
        assert_eq!(
            parse(r#"{"name": "sgd"}"#).unwrap(),
            OptimizerConfig::default()
        );
        let OptimizerConfig::Sgd(sgd) = OptimizerConfig::default() else {
            panic!("the default is SGD")
        };
        assert_eq!((sgd.sgd_momentum, sgd.weight_decay), (0.9, 1e-4));
        assert!(!sgd.nesterov && !sgd.exclude_norm_and_bias_from_weight_decay);
        let OptimizerConfig::Lars(lars) =
            parse(r#"{"name": "lars", "weight_decay": 1e-6}"#).unwrap()
        else {
            panic!("the name chooses")
        };
        assert_eq!(
            (lars.weight_decay, lars.trust_coefficient, lars.sgd_momentum),
            (1e-6, 0.001, 0.9)
        );
        assert!(
            lars.exclude_norm_and_bias_from_weight_decay && lars.exclude_norm_and_bias_from_scaling
        );
        let OptimizerConfig::AdamW(adamw) =
            parse(r#"{"name": "adamw", "betas": [0.9, 0.95]}"#).unwrap()
        else {
            panic!("the name chooses")
        };
        assert_eq!(
            (adamw.betas, adamw.eps, adamw.weight_decay),
            ([0.9, 0.95], 1e-8, 1e-2)
        );
        assert!(
            parse(r#"{"name": "sgd", "betas": [0.9, 0.95]}"#)
                .unwrap_err()
                .to_string()
                .contains("betas")
        );
        assert!(
            parse(r#"{"name": "rmsprop"}"#)
                .unwrap_err()
                .to_string()
                .contains("rmsprop")
        );
    }

    #[test]
    fn configurations_survive_a_round_trip() {
        for config in [
            OptimizerConfig::default(),
            OptimizerConfig::Lars(LarsConfig {
                trust_coefficient: 0.02,
                ..LarsConfig::default()
            }),
            OptimizerConfig::AdamW(AdamWConfig {
                eps: 1e-6,
                ..AdamWConfig::default()
            }),
        ] {
            assert_eq!(
                parse(&serde_json::to_string(&config).unwrap()).unwrap(),
                config
            );
        }
    }

    #[test]
    fn values_out_of_range_are_named_with_their_range() {
        for (json, name) in [
            (r#"{"name": "sgd", "sgd_momentum": 1.0}"#, "sgd_momentum"),
            (r#"{"name": "sgd", "weight_decay": -0.1}"#, "weight_decay"),
            (
                r#"{"name": "sgd", "sgd_momentum": 0.0, "nesterov": true}"#,
                "nesterov",
            ),
            (
                r#"{"name": "lars", "trust_coefficient": 0.0}"#,
                "trust_coefficient",
            ),
            (r#"{"name": "adamw", "betas": [0.9, 1.0]}"#, "betas"),
            (r#"{"name": "adamw", "eps": 0.0}"#, "eps"),
        ] {
            let message = parse(json).unwrap().validate().unwrap_err().to_string();
            assert!(message.contains(name), "{json}: {message}");
        }
    }

    #[test]
    fn exclusion_spares_biases_and_normalisation_only() {
        let everything = OptimizerConfig::default();
        let excluding = OptimizerConfig::Lars(LarsConfig::default());
        for role in [ParameterRole::ConvWeight, ParameterRole::LinearWeight] {
            assert_eq!(excluding.weight_decay_of(role), 1e-4);
        }
        for role in [
            ParameterRole::Bias,
            ParameterRole::NormScale,
            ParameterRole::NormShift,
        ] {
            assert_eq!(excluding.weight_decay_of(role), 0.0);
            assert_eq!(everything.weight_decay_of(role), 1e-4);
        }
    }
}
