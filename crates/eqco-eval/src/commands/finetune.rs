//! `eqco-eval finetune`: the whole network trained with labels.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use eqco_eval::{EvalError, EvalImages, ResultTable, SupervisedResult, WholeFile, encoder_sha256};
use eqco_models::checkpoint::{self, Checkpoint, CheckpointMetadata};
use eqco_models::{Classifier, Encoder};
use serde_json::json;

use super::output::{as_json, print};
use super::source::{CheckpointArgs, DataArgs};
use super::supervised::{Start, TrainingArgs, train};

/// Flags of `finetune`.
#[derive(Args, Debug)]
pub(super) struct FinetuneArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    training: TrainingArgs,
    /// Folder for the fine-tuned network, a checkpoint with `classifier.weight` and `classifier.bias`, and for the result;
    /// made if it does not exist
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Print one JSON object with the whole protocol instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &FinetuneArgs) -> Result<()> {
    let config = arguments.training.config()?;
    let source = arguments.data.open(arguments.checkpoint.path())?;
    let images = source.images()?;
    let starts = arguments.training.starts(&source)?;
    let folder = arguments.out.as_deref();
    folder.map(prepare_folder).transpose()?;
    let digest = encoder_sha256(&starts[0].1)?;
    let mut outcomes = Vec::new();
    let mut tuned = None;
    for (start, encoder) in &starts {
        let (classifier, result) = train(encoder, *start, start.name(), &images, &config)?;
        if *start == Start::Checkpoint {
            tuned = Some((classifier, encoder));
        }
        outcomes.push((*start, result));
    }
    let metadata = source.checkpoint.metadata.clone();
    let provenance = source.provenance(digest);
    let by_key = outcomes.iter().map(|(start, result)| (start.key(), result));
    let text = as_json(&provenance, by_key)?;
    // The result is printed even where it cannot be written.
    let written = match (folder, tuned) {
        (Some(folder), Some((classifier, encoder))) => {
            let metadata = tuned_metadata(metadata, &images, &outcomes[0].1);
            write_folder(folder, &classifier, encoder, metadata, &text)
        }
        _ => Ok(()),
    };
    match arguments.json {
        true => print(&text)?,
        false => print(&table(&images, &outcomes))?,
    }
    written
}

fn table(images: &EvalImages, outcomes: &[(Start, SupervisedResult)]) -> String {
    let mut table = ResultTable::new(&["top-1 %"]);
    for (start, result) in outcomes {
        table.add(start.name(), &[result.accuracy.top1]);
    }
    let (plan, protocol) = (&outcomes[0].1.plan, &outcomes[0].1.protocol);
    format!(
        "whole network trained with labels, {} epochs, batch {}: {}, {} training and {} test \
         images\n\n{table}",
        plan.epochs,
        plan.batch_size,
        images.train().name(),
        protocol.train.count,
        protocol.test.count,
    )
}

/// Where the checkpoint goes: a folder below, as in the folder of a run, so that the commands find it.
fn checkpoints(folder: &Path) -> PathBuf {
    folder.join("checkpoints")
}

/// Makes the folder before the long part of the work.
fn prepare_folder(folder: &Path) -> Result<(), EvalError> {
    let refused = |found: &str| EvalError::OutputPlace {
        path: folder.to_owned(),
        expected: "a folder without checkpoints, or a free name".to_owned(),
        found: found.to_owned(),
        next: "choose another --out",
    };
    if folder.exists() && !folder.is_dir() {
        return Err(refused("a file or a device"));
    }
    let checkpoints = checkpoints(folder);
    // An empty one is what an attempt that failed has left.
    let is_taken = checkpoints
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some());
    if is_taken {
        return Err(refused("checkpoints in it"));
    }
    std::fs::create_dir_all(&checkpoints).map_err(|source| EvalError::Unwritable {
        path: checkpoints,
        source,
    })
}

/// The metadata of the encoder that it started from, with what was done since under `training.finetune`.
fn tuned_metadata(
    metadata: CheckpointMetadata,
    images: &EvalImages,
    result: &SupervisedResult,
) -> CheckpointMetadata {
    let mut training = metadata.training;
    if let Some(training) = training.as_object_mut() {
        let done = json!({
            "class_names": images.class_names(),
            "plan": result.plan,
            "protocol": result.protocol,
        });
        training.insert("finetune".to_owned(), done);
    }
    CheckpointMetadata {
        image_size: images.image_size(),
        training,
        step: result.plan.steps,
        epoch: result.plan.epochs,
        commit: concat!("eqco-eval ", env!("CARGO_PKG_VERSION")).to_owned(),
        progress: serde_json::Value::Null,
        ..metadata
    }
}

/// Writes checkpoint and result. The projection head is that of the encoder, unchanged, so that the checkpoint can be evaluated
/// as every other.
fn write_folder(
    folder: &Path,
    classifier: &Classifier,
    encoder: &Encoder,
    metadata: CheckpointMetadata,
    result: &str,
) -> Result<()> {
    let mut tensors = classifier.to_checkpoint()?;
    let of_head = |(name, _): &(String, _)| !name.starts_with("encoder.backbone.");
    tensors.extend(encoder.to_checkpoint()?.into_iter().filter(of_head));
    let path = checkpoints(folder).join(format!("step-{:09}.safetensors", metadata.step));
    checkpoint::save(&path, &Checkpoint { metadata, tensors })
        .context("the fine-tuned network could not be saved")?;
    let file = WholeFile::create(&folder.join("finetune.json"))?;
    Ok(file.write(|out| writeln!(out, "{result}"))?)
}
