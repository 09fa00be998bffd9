//! Losses and gradients that are not finite: found before they reach the weights, written down, stopped at or skipped.
//!
//! On a CPU every step is looked at before its update: the loss is there, and the norm of the gradients costs one pass over
//! them, a small part of a step. On a GPU nobody waits: the loss of a step is looked at when the next one has been sent off, and
//! the gradients in the steps whose geometry is recorded. Where steps are to be skipped, a GPU is waited for in every step.

mod dump;
mod replay;
mod steps;

use eqco_core::BatchStatistics;
use eqco_models::params::ParameterSet;
use eqco_models::total_norm;
use serde::{Deserialize, Serialize};

pub use dump::{Dump, DumpError, Exact};
pub use replay::{Replay, ReplayReport};
pub use steps::{NonfiniteSteps, Stopped};

/// What becomes of a run when a step's loss or gradient is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNonfinite {
    /// It ends.
    #[default]
    Stop,
    /// It goes on with the next batch, and with the state that it had before the step, until too many have been skipped.
    Skip,
}

/// A step whose loss or gradient is not finite.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", self.describe())]
pub struct Nonfinite {
    /// Steps done before it, over the whole run.
    pub step: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Its loss, with what the loss says about the batch.
    pub statistics: BatchStatistics,
    /// The norm of all of its gradients, where they have been looked at.
    pub gradient_norm: Option<f64>,
    /// The parameter whose gradient was the first to be not finite, in the order of the backward pass.
    pub first_gradient: Option<String>,
}

impl Nonfinite {
    /// Judges a step by its loss and by the norm of each parameter's gradient, where these are known.
    pub fn judge(
        (step, learning_rate): (u64, f64),
        statistics: &BatchStatistics,
        norms: Option<&[f64]>,
        parameters: &ParameterSet,
    ) -> Option<Self> {
        let gradient_norm = norms.map(total_norm);
        if statistics.loss.is_finite() && gradient_norm.is_none_or(f64::is_finite) {
            return None;
        }
        let mut parts = parameters.parameters().iter().zip(norms.unwrap_or(&[]));
        // Parameters are declared in the order of the forward pass.
        let first = parts.rfind(|(_, norm)| !norm.is_finite());
        Some(Self {
            step,
            learning_rate,
            statistics: *statistics,
            gradient_norm,
            first_gradient: first.map(|(parameter, _)| parameter.name().to_owned()),
        })
    }

    /// A step that is finite here, and not in another of the processes that share its batch.
    pub fn in_another_process(
        (step, learning_rate): (u64, f64),
        statistics: BatchStatistics,
    ) -> Self {
        Self {
            step,
            learning_rate,
            statistics,
            gradient_norm: None,
            first_gradient: None,
        }
    }

    fn describe(&self) -> String {
        let Self {
            step, statistics, ..
        } = self;
        let loss = statistics.loss;
        match &self.first_gradient {
            _ if !loss.is_finite() => format!(
                "the loss of step {step} is {loss}: training has diverged; lower --lr, or raise --temperature"
            ),
            Some(name) => format!(
                "the gradient of step {step} is not finite, first that of {name}, at a loss of {loss}: training has diverged; \
                 lower --lr, or raise --temperature"
            ),
            None => match self.gradient_norm {
                Some(norm) => format!(
                    "the gradient of step {step} has a norm of {norm}, at a loss of {loss}: training has diverged; lower --lr, \
                     or raise --temperature"
                ),
                None => format!(
                    "step {step} is not finite in another process: training has diverged; lower --lr, or raise --temperature"
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use eqco_models::params::ParameterBuilder;

    use super::*;

    fn statistics(loss: f64) -> BatchStatistics {
        BatchStatistics {
            loss,
            contrast_top1: 0.5,
            positive_similarity: 0.9,
            negative_similarity: 0.1,
            gradient_scale: 0.5,
            gradient_scale_deviation: 0.1,
            guaranteed_bound: 1.0,
            paper_bound: 2.0,
        }
    }

    #[test]
    fn a_step_is_judged_by_its_loss_and_by_every_gradient() {
        let mut builder = ParameterBuilder::new(1, &Device::Cpu);
        for name in ["a", "b", "c"] {
            builder
                .scope(name, |b| b.linear_weight("weight", 1, 1))
                .unwrap();
        }
        let set = builder.finish();
        let judge = |loss, norms: Option<&[f64]>| {
            Nonfinite::judge((7, 0.1), &statistics(loss), norms, &set)
        };
        assert_eq!(judge(1.0, None), None);
        assert_eq!(judge(1.0, Some(&[1.0, 0.0, 2.0])), None);

        let found = judge(f64::NAN, None).unwrap();
        assert_eq!(
            (found.gradient_norm, found.first_gradient.as_deref()),
            (None, None)
        );
        assert!(
            found
                .to_string()
                .starts_with("the loss of step 7 is NaN: training has diverged")
        );

        let elsewhere = Nonfinite::in_another_process((7, 0.1), statistics(1.5));
        assert!(
            elsewhere
                .to_string()
                .starts_with("step 7 is not finite in another process: training has diverged")
        );

        let found = judge(1.5, Some(&[f64::NAN, f64::INFINITY, 2.0])).unwrap();
        assert_eq!(found.first_gradient.as_deref(), Some("b.weight"));
        assert!(found.to_string().starts_with(
            "the gradient of step 7 is not finite, first that of b.weight, at a loss of 1.5: training has diverged"
        ));
    }
}
