//! kNN while a run trains, on a few images that are kept in memory.

use anyhow::{Context, Result};
use eqco_eval::{EvalImages, KnnConfig, knn, represent};
use eqco_models::{Encoder, Precision};

use crate::config::TrainConfig;

/// The images and the settings of the measurement.
pub struct OnlineKnn {
    images: EvalImages,
    config: KnnConfig,
    every_epochs: u64,
}

/// What one measurement found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnlineTop1 {
    /// kNN top-1 in percent.
    pub knn_top1: f64,
    /// Images that voted.
    pub train_images: usize,
    /// Images that were classified.
    pub test_images: usize,
}

impl OnlineKnn {
    /// Reads `run.knn_images` of each part into memory; `None` if the run does not ask for it.
    ///
    /// # Errors
    /// When images cannot be read, or there are fewer than neighbours to vote.
    pub fn new(config: &TrainConfig, images: &EvalImages) -> Result<Option<Self>> {
        let (every_epochs, count) = (config.run.knn_every_epochs, config.run.knn_images);
        if every_epochs == 0 {
            return Ok(None);
        }
        let images = images.in_memory(count, count)?;
        let config = config.evaluation.knn.clone();
        config
            .check(images.train_count())
            .context("run.knn_images leaves too few images for evaluation.knn")?;
        Ok(Some(Self {
            images,
            config,
            every_epochs,
        }))
    }

    /// Whether it is due after so many epochs.
    pub fn is_due(&self, epochs_done: u64) -> bool {
        epochs_done.is_multiple_of(self.every_epochs)
    }

    /// Measures `encoder` in evaluation mode and f32, which changes nothing in it.
    ///
    /// # Errors
    /// Those of [`represent`] and [`knn`].
    pub fn measure(&self, encoder: &Encoder) -> Result<OnlineTop1> {
        let encoder = encoder.clone().with_precision(Precision::F32);
        let found = represent(&encoder, "encoder in training", &self.images, &mut |_| {})?;
        let result = knn(&found.features, &self.config)?;
        Ok(OnlineTop1 {
            knn_top1: result.accuracy.top1,
            train_images: found.features.train().count(),
            test_images: found.features.test().count(),
        })
    }
}
