//! What was done on what: enough to repeat a measurement, written into every result.

use serde::{Deserialize, Serialize};

use crate::{FeaturePair, Features, Origin};

/// The whole protocol of one measurement; `Config` is the evaluation's own configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol<Config> {
    /// The method in words, with its source.
    pub method: String,
    /// Every setting of the method, seeds included.
    pub config: Config,
    /// What was learnt from.
    pub train: Sample,
    /// What was measured on.
    pub test: Sample,
    /// Numbers per image.
    pub dim: usize,
    /// Number of classes.
    pub class_count: usize,
}

/// One part of the data as it was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Data set, part and representation.
    pub origin: Origin,
    /// Number of images.
    pub count: usize,
}

impl<Config: Clone> Protocol<Config> {
    /// The protocol of `method` with `config` on `features`.
    pub(crate) fn new(method: &str, config: &Config, features: &FeaturePair) -> Self {
        let sample = |part: &Features| Sample {
            origin: part.origin().clone(),
            count: part.count(),
        };
        Self {
            method: method.to_owned(),
            config: config.clone(),
            train: sample(features.train()),
            test: sample(features.test()),
            dim: features.train().dim(),
            class_count: features.train().class_count(),
        }
    }
}
