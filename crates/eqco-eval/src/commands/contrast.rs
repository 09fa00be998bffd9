//! `eqco-eval contrast`: the loss of a trained encoder at other numbers of negatives.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use eqco_core::{Alpha, LossConfig};
use eqco_data::recipe::{Recipe, RecipeConfig};
use eqco_data::{Format, Split};
use eqco_eval::{AtCount, ContrastConfig, ContrastResult, contrast, find_checkpoint};
use eqco_models::Encoder;
use eqco_models::checkpoint::{self, Checkpoint};
use serde::{Deserialize, Serialize};

use super::compute::{ComputeArgs, ComputedOn};
use super::output::print;
use super::source::{Images, trained_on, training_value};

/// Stands before the names of the momentum encoder's tensors in a checkpoint.
const MOMENTUM_ENCODER: &str = "momentum_encoder.";

/// Flags of `contrast`.
#[derive(Args, Debug)]
pub(super) struct ContrastArgs {
    /// Checkpoint of a run with a momentum encoder, or the folder of the run, which stands for its last checkpoint
    #[arg(value_name = "CHECKPOINT|RUN_FOLDER")]
    checkpoint: PathBuf,
    /// Negatives per query, with commas between them
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_values_t = [1, 4, 16, 64, 128])]
    negatives: Vec<usize>,
    /// Number of negatives to be equivalent to [default: the run's]
    #[arg(long, value_name = "COUNT")]
    alpha: Option<f64>,
    /// Temperature [default: the run's]
    #[arg(long, value_name = "NUMBER")]
    temperature: Option<f64>,
    /// Images: a manifest's name or a path; their test part is used [default: the data set of the run]
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// How the images at that path lie on disk: folder, idx, cifar10, cifar100, imagenet-tar, shards, parquet or packed [default: what is found]
    #[arg(long, value_name = "NAME", requires = "data")]
    format: Option<Format>,
    /// Images of a batch [default: the run's]
    #[arg(long, value_name = "IMAGES")]
    batch_size: Option<usize>,
    /// Batches
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    batches: usize,
    /// Draws of negatives for each batch
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    draws: u64,
    /// Seed of views and draws
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// The JSON form: the result, and where it was computed.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    result: &'a ContrastResult,
    computed_on: ComputedOn,
}

pub(super) fn run(arguments: &ContrastArgs) -> Result<()> {
    let compute = arguments.compute.start()?;
    let path = find_checkpoint(&arguments.checkpoint)?;
    let checkpoint = checkpoint::load(&path)?;
    let config = arguments.config(&checkpoint)?;
    let encoder = compute.encoder(&checkpoint, &path)?;
    let momentum_encoder = momentum_encoder(&checkpoint, &encoder, &path)?;
    let recipe: RecipeConfig = setting(&checkpoint, "/data/recipe")?;
    let images = match &arguments.data {
        Some(source) => Images {
            source: source.clone(),
            format: arguments.format,
        },
        None => trained_on(&checkpoint.metadata)?,
    };
    let images = images.open(Split::Test)?;
    let needed = config.batch_size;
    ensure!(
        images.len() >= needed,
        "{}: expected at least one batch of {needed} images, found {}; lower --batch-size",
        images.name(),
        images.len()
    );
    let name = images.name().to_owned();
    let result = contrast(
        &encoder,
        &momentum_encoder,
        images,
        &Recipe::new(recipe)?,
        &config,
    )?;
    if arguments.json {
        let computed_on = compute.provenance();
        let report = Report {
            computed_on,
            result: &result,
        };
        return print(&serde_json::to_string_pretty(&report)?);
    }
    print(&table(&result, &name))
}

impl ContrastArgs {
    fn config(&self, checkpoint: &Checkpoint) -> Result<ContrastConfig> {
        let trained: LossConfig = setting(checkpoint, "/loss")?;
        let alpha = self.alpha.map_or(trained.alpha, Alpha::Equivalent);
        let batch_size = match self.batch_size {
            Some(images) => images,
            None => setting(checkpoint, "/data/loader/batch_size")?,
        };
        ensure!(
            matches!(alpha, Alpha::Equivalent(_)),
            "the run was trained with alpha {alpha}, which follows the negatives: give the number to hold fixed as --alpha"
        );
        Ok(ContrastConfig {
            negative_counts: self.negatives.clone(),
            loss: LossConfig {
                temperature: self.temperature.unwrap_or(trained.temperature),
                alpha,
            },
            batch_size,
            batches: self.batches,
            draws: self.draws,
            seed: self.seed,
        })
    }
}

/// A value of the training configuration.
fn setting<T: for<'de> Deserialize<'de>>(checkpoint: &Checkpoint, pointer: &str) -> Result<T> {
    let value = training_value(&checkpoint.metadata, pointer);
    let value =
        value.with_context(|| format!("the checkpoint does not hold {pointer} of its run"))?;
    T::deserialize(value)
        .with_context(|| format!("{pointer} of the checkpoint's run cannot be read"))
}

fn momentum_encoder(checkpoint: &Checkpoint, encoder: &Encoder, path: &Path) -> Result<Encoder> {
    let momentum_encoder = encoder.duplicate()?;
    let tensors = checkpoint.tensors.iter().cloned().collect();
    momentum_encoder
        .load_named(MOMENTUM_ENCODER, &tensors)
        .with_context(|| {
            format!(
                "{} has no momentum encoder: expected one of simo or moco_v2",
                path.display()
            )
        })?;
    Ok(momentum_encoder)
}

fn table(result: &ContrastResult, data: &str) -> String {
    let LossConfig { temperature, alpha } = result.config.loss;
    let mut text = format!(
        "alpha {alpha}, temperature {temperature}, {} images of {data} in batches of {}, {} draws each\n\n\
         {:>9}  {:>17}  {:>12}  {:>10}  {:>17}  {:>12}  {:>10}\n",
        result.images,
        result.config.batch_size,
        result.config.draws,
        "negatives",
        "loss",
        "below all",
        "expected",
        "gradient scale g",
        "below all",
        "expected",
    );
    let all = &result.with_all;
    for at in &result.at_counts {
        let _ = writeln!(text, "{}", line(at, all));
    }
    let _ = write!(
        text,
        "{:>9}  {:>17.4}  {:>12}  {:>10}  {:>17.4}\n\n± is one standard error over draws; expected is the second order of theory",
        format!("all {}", all.negative_count),
        all.loss,
        "",
        "",
        all.gradient_scale
    );
    text
}

fn line(at: &AtCount, all: &AtCount) -> String {
    format!(
        "{:>9}  {:>8.4} ± {:<6.4}  {:>12.4}  {:>10.4}  {:>8.4} ± {:<6.4}  {:>12.4}  {:>10.4}",
        at.negative_count,
        at.loss,
        at.loss_error,
        all.loss - at.loss,
        at.expected_loss_gap,
        at.gradient_scale,
        at.gradient_scale_error,
        all.gradient_scale - at.gradient_scale,
        at.expected_gradient_scale_gap,
    )
}
