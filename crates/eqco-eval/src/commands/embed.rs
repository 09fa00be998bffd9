//! `eqco-eval embed`: representations as a file for other programs.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use eqco_data::Split;
use eqco_eval::{EncoderOutput, FeatureFile, FeatureFormat, image_rows};

use super::output::print;
use super::source::{CheckpointArgs, DataArgs, image_bar};

/// Flags of `embed`.
#[derive(Args, Debug)]
pub(super) struct EmbedArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    #[command(flatten)]
    data: DataArgs,
    /// File to write: .safetensors, .npy (labels go to NAME.labels.npy) or .parquet (with the images' names)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Format of the file, whatever its extension
    #[arg(long, value_enum)]
    out_format: Option<FormatArg>,
    /// Part of the data set
    #[arg(long, value_enum, default_value_t = SplitArg::Train)]
    split: SplitArg,
    /// Write the projection head's embeddings, of unit length, instead of the backbone's representations
    #[arg(long)]
    embeddings: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    Safetensors,
    Npy,
    Parquet,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SplitArg {
    Train,
    Test,
}

pub(super) fn run(arguments: &EmbedArgs) -> Result<()> {
    let format = match arguments.out_format {
        Some(FormatArg::Safetensors) => FeatureFormat::Safetensors,
        Some(FormatArg::Npy) => FeatureFormat::Npy,
        Some(FormatArg::Parquet) => FeatureFormat::Parquet,
        None => FeatureFormat::of_path(&arguments.out)?,
    };
    let (split, split_name) = match arguments.split {
        SplitArg::Train => (Split::Train, "train"),
        SplitArg::Test => (Split::Test, "test"),
    };
    let output = match arguments.embeddings {
        true => EncoderOutput::Embedding,
        false => EncoderOutput::Representation,
    };
    let source = arguments.data.open(arguments.checkpoint.path())?;
    let dataset = source.part(split)?;
    let is_labelled = !dataset.class_names().is_empty();
    let file = FeatureFile::create(&arguments.out, format, is_labelled)?;
    let encoder = source.encoder()?;
    let bar = image_bar(dataset.len(), "images through the encoder".to_owned())?;
    let rows = image_rows(
        &encoder,
        output,
        &dataset,
        split_name,
        source.view,
        &mut |done| bar.set_position(done as u64),
    );
    bar.finish_and_clear();
    let rows = rows?;
    let paths: Vec<String> = file
        .paths()
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    file.write(&rows, &source.path)?;
    print(&format!(
        "{}: {} images of {} numbers in {}",
        rows.origin,
        rows.count(),
        rows.dim,
        paths.join(" and ")
    ))
}
