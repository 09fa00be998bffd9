//! `eqco-eval semi`: training with a share of the labels.

use anyhow::Result;
use clap::Args;
use eqco_data::Dataset;
use eqco_eval::{
    EvalImages, LinearProbeConfig, LinearProbeResult, ResultTable, check_share, encoder_sha256,
    label_share, linear_probe,
};
use eqco_models::Encoder;
use serde::Serialize;
use serde_json::{Map, Value};

use super::output::{as_json, print};
use super::source::{CheckpointArgs, DataArgs};
use super::subjects::represent_with_bar;
use super::supervised::{Start, TrainingArgs, train};

/// Flags of `semi`.
#[derive(Args, Debug)]
pub(super) struct SemiArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Shares of every class whose labels are used, above 0 and at most 1, with commas between them; at least one image of
    /// each class
    #[arg(long = "share", value_name = "NUMBERS", value_delimiter = ',', default_values_t = [0.01, 0.1])]
    shares: Vec<f64>,
    #[command(flatten)]
    training: TrainingArgs,
    /// Print one JSON object with the whole protocol instead of a table
    #[arg(long)]
    json: bool,
}

/// What one share of the labels gave.
#[derive(Serialize)]
struct ShareResult {
    share: f64,
    label_count: usize,
    /// `finetuned`, and `from_scratch` where it was asked for.
    #[serde(flatten)]
    trained: Map<String, Value>,
    /// On the pre-trained representation of the same images; `null` where no class has two of them, one to learn from and one
    /// to choose the learning rate by.
    linear: Option<LinearProbeResult>,
    /// For the table: the top-1 of every training in percent.
    #[serde(skip)]
    top1: Vec<f64>,
}

pub(super) fn run(arguments: &SemiArgs) -> Result<()> {
    let config = arguments.training.config()?;
    for share in &arguments.shares {
        check_share(*share)?;
    }
    let source = arguments.data.open(arguments.checkpoint.path())?;
    let images = source.images()?;
    let starts = arguments.training.starts(&source)?;
    let digest = encoder_sha256(&starts[0].1)?;
    let mut results = Vec::new();
    for &share in &arguments.shares {
        let labelled = label_share(images.train(), share, config.seed)?;
        let images = images.with_train(labelled)?;
        let (mut trained, mut top1) = (Map::new(), Vec::new());
        for (start, encoder) in &starts {
            let name = format!("{}, share {share}", start.name());
            let (_, result) = train(encoder, *start, &name, &images, &config)?;
            top1.push(result.accuracy.top1);
            trained.insert(start.key().to_owned(), serde_json::to_value(result)?);
        }
        results.push(ShareResult {
            share,
            label_count: images.train_count(),
            trained,
            linear: probe(&starts[0].1, &images, config.seed)?,
            top1,
        });
    }
    if arguments.json {
        let by_share = results
            .iter()
            .map(|result| (result.share.to_string(), result));
        return print(&as_json(&source.provenance(digest), by_share)?);
    }
    let starts: Vec<Start> = starts.iter().map(|(start, _)| *start).collect();
    print(&table(&images, &starts, &results))
}

/// The linear probe on the labelled images, where one is possible.
fn probe(encoder: &Encoder, images: &EvalImages, seed: u64) -> Result<Option<LinearProbeResult>> {
    if !has_two_of_a_class(images.train().as_ref()) {
        return Ok(None);
    }
    let features = represent_with_bar(encoder, "pre-trained", images)?.features;
    let config = LinearProbeConfig {
        seed,
        ..LinearProbeConfig::default()
    };
    Ok(Some(linear_probe(&features, &config)?))
}

fn has_two_of_a_class(images: &dyn Dataset) -> bool {
    let mut seen = vec![false; images.class_names().len()];
    let labels = (0..images.len()).filter_map(|index| images.label(index));
    labels
        .into_iter()
        .any(|label| std::mem::replace(&mut seen[label as usize], true))
}

fn table(images: &EvalImages, starts: &[Start], results: &[ShareResult]) -> String {
    let mut columns: Vec<String> = starts
        .iter()
        .map(|start| format!("{} top-1 %", start.name()))
        .collect();
    columns.push("linear top-1 %".to_owned());
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = ResultTable::new(&columns);
    for result in results {
        let linear = result.linear.as_ref().map(|linear| linear.accuracy.top1);
        let figures: Vec<f64> = result.top1.iter().copied().chain(linear).collect();
        let name = format!("{} of the labels ({})", result.share, result.label_count);
        table.add(&name, &figures);
    }
    let mut text = format!(
        "trained with a share of the labels: {}, {} training and {} test images\n\n{table}",
        images.train().name(),
        images.train_count(),
        images.test().len(),
    );
    if results.iter().any(|result| result.linear.is_none()) {
        text.push_str("\n\nno linear probe where no class has two labelled images");
    }
    text
}
