//! What a command measures: the encoder of a checkpoint and its baselines, on one data set.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use candle_core::Device;
use clap::Args;
use eqco_data::{Split, limited, open};
use eqco_eval::{EvalImages, FeaturePair, Representation, find_checkpoint, raw_pixels, represent};
use eqco_models::Encoder;
use eqco_models::checkpoint::{self, Checkpoint, CheckpointMetadata};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Flags that every command has.
#[derive(Args, Debug)]
pub(super) struct SubjectArgs {
    /// Checkpoint, or the folder of a run, which stands for its last checkpoint
    #[arg(
        value_name = "CHECKPOINT|RUN_FOLDER",
        required_unless_present = "checkpoint_flag"
    )]
    checkpoint: Option<PathBuf>,
    /// The same as a flag
    #[arg(
        long = "checkpoint",
        id = "checkpoint_flag",
        value_name = "CHECKPOINT|RUN_FOLDER",
        conflicts_with = "checkpoint"
    )]
    checkpoint_flag: Option<PathBuf>,
    /// Images with classes: a manifest's name ("embedded", "cifar10", ...) or a path
    /// [default: the data set of the checkpoint's training]
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// Use at most this many training images and this many test images, in balanced classes
    #[arg(long, value_name = "IMAGES")]
    limit: Option<usize>,
    /// Side of the square images in pixels [default: what the training configuration says]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    /// Measure the same encoder at its initialisation as well
    #[arg(long)]
    untrained: bool,
    /// Measure the pixels themselves as well
    #[arg(long)]
    raw_pixels: bool,
    /// Threads; 0 for one a core
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1024))]
    threads: u16,
    /// Print one JSON object with the whole protocol instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

/// Representations to be measured, in the order of the table.
pub(super) struct Subjects {
    /// Where the encoder comes from.
    pub(super) checkpoint: CheckpointOrigin,
    /// Name of the training part.
    pub(super) data_name: String,
    /// The features with the row that they belong to.
    pub(super) features: Vec<(Row, FeaturePair)>,
}

/// The rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Pretrained,
    Untrained,
    RawPixels,
}

impl Row {
    /// The name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pretrained => "pre-trained",
            Self::Untrained => "untrained",
            Self::RawPixels => "raw pixels",
        }
    }

    /// The name for machines, as in a run's `summary.json`.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Pretrained => "pretrained",
            Self::Untrained => "untrained",
            Self::RawPixels => "raw_pixels",
        }
    }
}

/// Which encoder was measured; part of the JSON result.
#[derive(Debug, Serialize)]
pub(super) struct CheckpointOrigin {
    path: PathBuf,
    /// Of all its tensors, before and after the evaluation.
    encoder_sha256: String,
    metadata: CheckpointMetadata,
}

/// An encoder with its images, before the long part of the work.
pub(super) struct OpenedSubjects<'a> {
    arguments: &'a SubjectArgs,
    path: PathBuf,
    checkpoint: Checkpoint,
    images: EvalImages,
}

impl SubjectArgs {
    /// Starts the threads, reads the checkpoint and opens the data set.
    pub(super) fn open(&self) -> Result<OpenedSubjects<'_>> {
        let threads = start_threads(self.threads)?;
        let given = self
            .checkpoint
            .as_deref()
            .or(self.checkpoint_flag.as_deref());
        let path = find_checkpoint(given.unwrap_or(Path::new(".")))?;
        let checkpoint = checkpoint::load(&path)?;
        let images = self.images(&checkpoint.metadata, threads)?;
        Ok(OpenedSubjects {
            arguments: self,
            path,
            checkpoint,
            images,
        })
    }

    fn images(&self, metadata: &CheckpointMetadata, threads: usize) -> Result<EvalImages> {
        let source = match &self.data {
            Some(source) => source.clone(),
            None => training_value(metadata, "/data/source")
                .and_then(|source| source.as_str().map(str::to_owned))
                .context(
                    "the checkpoint does not say which data set it was trained on: give --data",
                )?,
        };
        let image_size = self.image_size.unwrap_or(metadata.image_size);
        open_images(&source, [self.limit; 2], image_size, threads)
    }
}

/// Sizes the one pool that all kernels share, 0 for one thread a core; answers with its size.
pub(super) fn start_threads(threads: u16) -> Result<usize> {
    let threads = match threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => usize::from(threads),
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
    pool.with_context(|| format!("{threads} threads cannot be started"))?;
    Ok(threads)
}

/// Opens both parts of a data set, with at most so many images of the training and of the test part.
pub(super) fn open_images(
    source: &str,
    limits: [Option<usize>; 2],
    image_size: usize,
    threads: usize,
) -> Result<EvalImages> {
    let part = |split, limit: Option<usize>| {
        let whole = open(source, split)?;
        Ok::<_, anyhow::Error>(match limit {
            Some(limit) => limited(whole, limit),
            None => whole,
        })
    };
    // Decoding is a small part of the work beside an encoder.
    let workers = (threads / 4).max(1);
    let (train, test) = (
        part(Split::Train, limits[0])?,
        part(Split::Test, limits[1])?,
    );
    let images = EvalImages::new(train, test, image_size, workers);
    images.with_context(|| format!("{source} cannot be used for an evaluation"))
}

impl OpenedSubjects<'_> {
    /// Number of training images.
    pub(super) fn train_count(&self) -> usize {
        self.images.train_count()
    }

    /// Passes all images through the encoder and makes the baselines that are wanted.
    pub(super) fn represent(self) -> Result<Subjects> {
        let Self {
            arguments,
            path,
            checkpoint,
            images,
        } = self;
        let encoder = Encoder::from_checkpoint(&checkpoint, &Device::Cpu)
            .with_context(|| format!("the encoder of {} cannot be built", path.display()))?;
        let found = represent_with_bar(&encoder, Row::Pretrained, &images)?;
        let mut features = vec![(Row::Pretrained, found.features)];
        if arguments.untrained {
            let encoder = at_initialisation(&checkpoint)?;
            let untrained = represent_with_bar(&encoder, Row::Untrained, &images)?;
            features.push((Row::Untrained, untrained.features));
        }
        if arguments.raw_pixels {
            features.push((Row::RawPixels, raw_pixels(&images)?));
        }
        let data_name = features[0].1.train().origin().data.clone();
        let (encoder_sha256, metadata) = (found.encoder_sha256, checkpoint.metadata);
        let checkpoint = CheckpointOrigin {
            path,
            encoder_sha256,
            metadata,
        };
        Ok(Subjects {
            checkpoint,
            data_name,
            features,
        })
    }
}

/// The encoder as it was before the first step of the run that wrote the checkpoint.
fn at_initialisation(checkpoint: &Checkpoint) -> Result<Encoder> {
    let metadata = &checkpoint.metadata;
    let seed = training_value(metadata, "/seed").and_then(serde_json::Value::as_u64);
    let seed = seed.ok_or_else(|| {
        anyhow!("the checkpoint does not hold the seed of its run: leave --untrained away")
    })?;
    let (encoder, head) = (&metadata.encoder, &metadata.projection_head);
    Ok(Encoder::new(
        encoder,
        head,
        metadata.normalization,
        seed,
        &Device::Cpu,
    )?)
}

/// A value of the training configuration, whose form belongs to the program that trained.
pub(super) fn training_value<'a>(
    metadata: &'a CheckpointMetadata,
    pointer: &str,
) -> Option<&'a serde_json::Value> {
    metadata.training.pointer(pointer)
}

/// [`represent`] with a bar on stderr, where that is a terminal.
pub(super) fn represent_with_bar(
    encoder: &Encoder,
    row: Row,
    images: &EvalImages,
) -> Result<Representation> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}%  ETA {eta}")?;
    let bar = ProgressBar::new(images.count() as u64).with_style(style);
    bar.set_message(format!("images through the {} encoder", row.name()));
    let name = format!("{} encoder", row.name());
    let found = represent(encoder, &name, images, &mut |done| {
        bar.set_position(done as u64)
    });
    bar.finish_and_clear();
    Ok(found?)
}
