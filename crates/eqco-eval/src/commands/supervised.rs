//! What `finetune` and `semi` share: the flags of training, its two starts and its display.

use std::io::{self, Write};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use eqco_eval::{
    EvalImages, SupervisedConfig, SupervisedProgress, SupervisedResult, train_supervised,
};
use eqco_models::{Classifier, Encoder};
use indicatif::{ProgressBar, ProgressStyle};

use super::source::Source;

/// Flags of training.
#[derive(Args, Debug)]
pub(super) struct TrainingArgs {
    /// Passes over the training images
    #[arg(long, value_name = "COUNT", default_value_t = SupervisedConfig::default().epochs)]
    epochs: u64,
    /// More passes where there would be fewer steps than this
    #[arg(long, value_name = "COUNT", default_value_t = SupervisedConfig::default().least_steps)]
    least_steps: u64,
    /// Learning rate at the start for a batch of 256, scaled with the batch
    #[arg(long, value_name = "NUMBER", default_value_t = SupervisedConfig::default().learning_rate)]
    lr: f64,
    /// Images per step
    #[arg(long, value_name = "IMAGES", default_value_t = SupervisedConfig::default().batch_size)]
    batch_size: usize,
    /// Weight decay on all parameters
    #[arg(long, value_name = "NUMBER", default_value_t = SupervisedConfig::default().weight_decay)]
    weight_decay: f64,
    /// Smallest share of an image's area that a random crop shows
    #[arg(long, value_name = "SHARE", default_value_t = SupervisedConfig::default().smallest_crop)]
    smallest_crop: f64,
    /// Seed of order and crops, and of the choice of images
    #[arg(long, value_name = "NUMBER", default_value_t = SupervisedConfig::default().seed)]
    seed: u64,
    /// Train the same network from its initialisation as well
    #[arg(long)]
    from_scratch: bool,
}

impl TrainingArgs {
    /// The settings, each in its range.
    pub(super) fn config(&self) -> Result<SupervisedConfig> {
        let config = SupervisedConfig {
            epochs: self.epochs,
            least_steps: self.least_steps,
            batch_size: self.batch_size,
            learning_rate: self.lr,
            weight_decay: self.weight_decay,
            smallest_crop: self.smallest_crop,
            seed: self.seed,
            ..SupervisedConfig::default()
        };
        config.check()?;
        Ok(config)
    }

    /// The starts that are wanted with their encoders, the checkpoint's first.
    pub(super) fn starts(&self, source: &Source) -> Result<Vec<(Start, Encoder)>> {
        let mut starts = vec![(Start::Checkpoint, source.encoder()?)];
        if self.from_scratch {
            let encoder = source.encoder_at_initialisation("--from-scratch")?;
            starts.push((Start::Initialisation, encoder));
        }
        Ok(starts)
    }
}

/// Where training starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Checkpoint,
    Initialisation,
}

impl Start {
    /// The name of the result for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "fine-tuned",
            Self::Initialisation => "from scratch",
        }
    }

    /// The name of the result for machines.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Checkpoint => "finetuned",
            Self::Initialisation => "from_scratch",
        }
    }
}

/// Trains a classifier that starts from `encoder`, with a line on stderr for every measured epoch and a bar where that is a
/// terminal. `name` says which training this is.
pub(super) fn train(
    encoder: &Encoder,
    start: Start,
    name: &str,
    images: &EvalImages,
    config: &SupervisedConfig,
) -> Result<(Classifier, SupervisedResult)> {
    let classes = images.class_names().len();
    let classifier = Classifier::on_encoder(encoder, classes)?;
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}%  ETA {eta}")?;
    let bar = ProgressBar::new(1).with_style(style);
    let began = Instant::now();
    let result = train_supervised(&classifier, start.name(), images, config, &mut |standing| {
        show(&bar, name, began, &standing)
    });
    bar.finish_and_clear();
    Ok((classifier, result?))
}

fn show(bar: &ProgressBar, name: &str, began: Instant, standing: &SupervisedProgress) {
    let &SupervisedProgress {
        epoch,
        epochs,
        step,
        steps,
        train_loss,
        test_top1,
    } = standing;
    bar.set_length(epochs * steps);
    bar.set_position((epoch - 1) * steps + step);
    bar.set_message(format!(
        "{name}, epoch {epoch}/{epochs}, loss {train_loss:.3}"
    ));
    if let Some(top1) = test_top1 {
        let width = epochs.to_string().len();
        let seconds = began.elapsed().as_secs();
        bar.suspend(|| {
            // A stderr that is closed is no reason to stop.
            let _ = writeln!(
                io::stderr(),
                "{name}, epoch {epoch:>width$}/{epochs}  loss {train_loss:.4}  test top-1 {top1:.2} %  {seconds} s"
            );
        });
    }
}
