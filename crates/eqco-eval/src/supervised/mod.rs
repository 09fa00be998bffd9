//! The whole network trained with labels, from a pre-trained backbone or from its initialisation.

mod config;

use std::sync::Arc;

use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::Recipe;
use eqco_models::Classifier;
use eqco_models::optim::{Optimizer, Schedule};
use eqco_models::tape::Gradients;
use serde::{Deserialize, Serialize};

use crate::accuracy::{Accuracy, first_largest};
use crate::{EvalError, EvalImages, Origin, Protocol, Sample};

pub use config::{Plan, SupervisedConfig};

/// Where supervised training stands, for a display.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SupervisedProgress {
    /// The epoch in hand, from 1.
    pub epoch: u64,
    /// Epochs in all.
    pub epochs: u64,
    /// Steps done in this epoch.
    pub step: u64,
    /// Steps of an epoch.
    pub steps: u64,
    /// Mean cross-entropy of this epoch so far, in nats.
    pub train_loss: f64,
    /// Top-1 on the test images in percent, once the epoch is over and where it was measured.
    pub test_top1: Option<f64>,
}

/// One epoch of supervised training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SupervisedEpoch {
    /// Mean cross-entropy over the epoch's batches, augmented as they are, in nats.
    pub train_loss: f64,
    /// Top-1 on the test images at its end in percent, where it was measured: after every epoch of up to 30, at even
    /// distances of more, and after the last.
    pub test_top1: Option<f64>,
}

/// Epochs of a run after which the test images are measured, about: with few training images they take longer than training.
const MEASURED_EPOCHS: u64 = 30;

/// Outcome of [`train_supervised`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SupervisedResult {
    /// Accuracy on the test part after the last epoch. No epoch is chosen by it.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// What the settings meant for this number of images.
    pub plan: Plan,
    /// Every epoch in order.
    pub epochs: Vec<SupervisedEpoch>,
    /// Everything needed to repeat the measurement.
    pub protocol: Protocol<SupervisedConfig>,
}

/// Trains all parameters of `classifier`, in place, on the training part of `images` and measures it on the test part. `start`
/// says in words where the backbone comes from.
///
/// The protocol is that of fine-tuning in SimCLR (Chen et al. 2020, appendix B) at the size of small data sets: cross-entropy,
/// random crops and flips, batch norm in training mode, SGD with momentum, no warm-up. The rate begins at 0.2·batch/256 and falls
/// along a cosine to 0, and weights decay by 1e-4: ImageNet's 0.05·batch/256 teaches too little in the few thousand steps that
/// small data sets make. Test images are seen whole, by running statistics.
///
/// Training and measuring run where the classifier is, by its kernels; losses and logits come to host memory. The result depends
/// on the settings, the images, the device and, on the CPU, the number of threads of the rayon pool.
///
/// # Errors
/// [`EvalError::InvalidSetting`], [`EvalError::TrainingDiverged`] when a loss is not finite, [`EvalError::Data`] and
/// [`EvalError::Model`].
pub fn train_supervised(
    classifier: &Classifier,
    start: &str,
    images: &EvalImages,
    config: &SupervisedConfig,
    progress: &mut dyn FnMut(SupervisedProgress),
) -> Result<SupervisedResult, EvalError> {
    let (found, expected) = (classifier.class_count(), images.class_names().len());
    if found != expected {
        let expected = format!("{expected}, the number of classes of the images");
        return Err(EvalError::setting("classes", expected, found));
    }
    let plan = config.plan(images.train_count(), images.image_size())?;
    let loader = loader(images, &plan, config.seed)?;
    let mut trainer = Trainer::new(classifier, &plan, config, loader.batches_per_epoch())?;
    let every = plan.epochs.div_ceil(MEASURED_EPOCHS);
    let mut epochs = Vec::new();
    let mut last = None;
    for epoch in 0..plan.epochs {
        let mut standing = trainer.epoch(&loader, epoch, progress)?;
        if standing.epoch.is_multiple_of(every) || standing.epoch == plan.epochs {
            let accuracy = test_accuracy(classifier, start, images)?;
            standing.test_top1 = Some(accuracy.top1);
            progress(standing);
            last = Some(accuracy);
        }
        epochs.push(SupervisedEpoch {
            train_loss: standing.train_loss,
            test_top1: standing.test_top1,
        });
    }
    let accuracy = match last {
        Some(accuracy) => accuracy,
        None => test_accuracy(classifier, start, images)?,
    };
    Ok(SupervisedResult {
        accuracy,
        plan,
        epochs,
        protocol: protocol(classifier, start, images, config),
    })
}

fn loader(images: &EvalImages, plan: &Plan, seed: u64) -> Result<Loader, EvalError> {
    let config = LoaderConfig {
        batch_size: plan.batch_size,
        workers: images.view().workers,
        seed,
        drop_last: true,
        shuffle: true,
        ..LoaderConfig::default()
    };
    let recipe = Recipe::new(plan.recipe.clone())?;
    Ok(Loader::new(
        Arc::clone(images.train()),
        vec![recipe],
        config,
    )?)
}

/// The state of training beside the weights.
struct Trainer<'a> {
    classifier: &'a Classifier,
    optimizer: Optimizer,
    gradients: Gradients,
    schedule: Schedule,
    image_size: usize,
    epochs: u64,
    steps_per_epoch: u64,
}

impl<'a> Trainer<'a> {
    fn new(
        classifier: &'a Classifier,
        plan: &Plan,
        config: &SupervisedConfig,
        steps_per_epoch: u64,
    ) -> Result<Self, EvalError> {
        let parameters = classifier.parameters();
        Ok(Self {
            classifier,
            optimizer: Optimizer::new(&config.optimizer(), parameters)?
                .with_backend(classifier.backend()),
            gradients: Gradients::new(parameters)?,
            schedule: Schedule::new(&plan.schedule(), plan.batch_size)?,
            image_size: plan.recipe.image_size,
            epochs: plan.epochs,
            steps_per_epoch,
        })
    }

    /// All steps of an epoch, counted from 0; where it stands at its end.
    fn epoch(
        &mut self,
        loader: &Loader,
        epoch: u64,
        progress: &mut dyn FnMut(SupervisedProgress),
    ) -> Result<SupervisedProgress, EvalError> {
        let mut standing = SupervisedProgress {
            epoch: epoch + 1,
            epochs: self.epochs,
            step: 0,
            steps: self.steps_per_epoch,
            train_loss: 0.0,
            test_top1: None,
        };
        let mut sum = 0.0;
        for batch in loader.epoch(epoch, 0) {
            let batch = batch?;
            let step = epoch * self.steps_per_epoch + standing.step;
            sum += self.step(&batch.views()?[0], &batch.labels, step)?;
            standing.step += 1;
            standing.train_loss = sum / standing.step as f64;
            progress(standing);
        }
        Ok(standing)
    }

    /// One step of gradient descent; its loss. Nothing is updated when that is not finite.
    fn step(&mut self, pixels: &[u8], labels: &[u32], step: u64) -> Result<f64, EvalError> {
        self.gradients.reset();
        let size = self.image_size;
        let loss = self
            .classifier
            .differentiate(pixels, size, labels, &mut self.gradients)?;
        let learning_rate = self.schedule.learning_rate(step, self.steps_per_epoch);
        if !loss.is_finite() {
            return Err(EvalError::TrainingDiverged {
                step,
                loss,
                learning_rate,
            });
        }
        let parameters = self.classifier.parameters();
        self.optimizer
            .step(parameters, &self.gradients, learning_rate)?;
        Ok(loss)
    }
}

/// Accuracy on the test images, with running statistics.
fn test_accuracy(
    classifier: &Classifier,
    start: &str,
    images: &EvalImages,
) -> Result<Accuracy, EvalError> {
    let name = format!("logits, {start}");
    let classes = classifier.class_count();
    let logits = images.test_features(&name, classes, &mut |pixels| {
        let logits = classifier.classify(pixels, images.image_size())?;
        Ok(logits.flatten_all()?.to_vec1()?)
    })?;
    let rows = logits.values().chunks_exact(classes);
    let predictions: Vec<u32> = rows.map(first_largest).collect();
    Ok(Accuracy::of(&predictions, logits.labels(), classes))
}

fn protocol(
    classifier: &Classifier,
    start: &str,
    images: &EvalImages,
    config: &SupervisedConfig,
) -> Protocol<SupervisedConfig> {
    let sample = |data: &str, split: &str, count: usize| Sample {
        origin: Origin::new(data, split, start),
        count,
    };
    let method = "supervised training of the whole network: zero-initialised linear classifier on the representation, \
                  cross-entropy, SGD with momentum, cosine schedule, random crops and flips, batch norm in training mode \
                  (after SimCLR's fine-tuning)";
    Protocol {
        method: method.to_owned(),
        config: config.clone(),
        train: sample(images.train().name(), "train", images.train_count()),
        test: sample(images.test().name(), "test", images.test().len()),
        dim: images.image_size() * images.image_size() * 3,
        class_count: classifier.class_count(),
    }
}

#[cfg(test)]
mod tests;
