//! What every command starts from: a checkpoint and a data set.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use eqco_data::{Dataset, Format, Split, limited, open_as};
use eqco_eval::{EvalImages, View, find_checkpoint};
use eqco_models::Encoder;
use eqco_models::checkpoint::{self, Checkpoint, CheckpointMetadata};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use super::compute::{Compute, ComputeArgs, ComputedOn};

/// The checkpoint, as an argument or as a flag.
#[derive(Args, Debug)]
pub(super) struct CheckpointArgs {
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
}

impl CheckpointArgs {
    /// The path that was given.
    pub(super) fn path(&self) -> &Path {
        let given = self.checkpoint.as_deref();
        given
            .or(self.checkpoint_flag.as_deref())
            .unwrap_or(Path::new("."))
    }
}

/// The images, and what works on them.
#[derive(Args, Debug)]
pub(super) struct DataArgs {
    /// Images: a manifest's name ("embedded", "cifar10", ...), a path, hf://datasets/OWNER/NAME, or shards
    /// https://HOST/{train-{0000..0123},val-{00..07}}.tar or s3://BUCKET/...
    /// [default: the data set of the checkpoint's training]
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// How the images at that path lie on disk: folder, idx, cifar10, cifar100, imagenet-tar, shards, parquet or packed [default: what is found]
    #[arg(long, value_name = "NAME", requires = "data")]
    format: Option<Format>,
    /// Use at most this many training images and this many test images, in balanced classes
    #[arg(long, value_name = "IMAGES")]
    limit: Option<usize>,
    /// Side of the square images in pixels [default: what the training configuration says]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// A checkpoint that has been read, and where its images are.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) checkpoint: Checkpoint,
    /// How images are seen.
    pub(super) view: View,
    pub(super) compute: Compute,
    data: Images,
    limit: Option<usize>,
}

/// Where images are, and in which format if that is not to be found out.
#[derive(Clone, Debug)]
pub(super) struct Images {
    pub(super) source: String,
    pub(super) format: Option<Format>,
}

impl Images {
    /// Those that a run was trained on, by what its configuration says.
    pub(super) fn of_run(source: &str, format: Option<&str>) -> Result<Self> {
        // Runs of older versions say nothing.
        let format = format.filter(|name| *name != "auto");
        Ok(Self {
            source: source.to_owned(),
            format: format.map(str::parse).transpose()?,
        })
    }

    /// One part of them.
    pub(super) fn open(&self, split: Split) -> Result<Arc<dyn Dataset>> {
        Ok(open_as(&self.source, split, self.format)?)
    }
}

/// The images that a checkpoint was trained on.
pub(super) fn trained_on(metadata: &CheckpointMetadata) -> Result<Images> {
    let source = training_value(metadata, "/data/source").and_then(Value::as_str);
    let source = source
        .context("the checkpoint does not say which data set it was trained on: give --data")?;
    let format = training_value(metadata, "/data/format").and_then(Value::as_str);
    Images::of_run(source, format)
}

/// Which encoder was measured; part of the JSON result.
#[derive(Debug, Serialize)]
pub(super) struct CheckpointOrigin {
    pub(super) path: PathBuf,
    /// Of all its tensors, before and after the evaluation.
    pub(super) encoder_sha256: String,
    pub(super) metadata: CheckpointMetadata,
}

/// Where figures come from: the first parts of every JSON result.
#[derive(Debug, Serialize)]
pub(super) struct Provenance {
    pub(super) checkpoint: CheckpointOrigin,
    pub(super) computed_on: ComputedOn,
}

impl DataArgs {
    /// Makes the device ready and reads the checkpoint that `given` means.
    pub(super) fn open(&self, given: &Path) -> Result<Source> {
        let compute = self.compute.start()?;
        let path = find_checkpoint(given)?;
        let checkpoint = checkpoint::load(&path)?;
        let metadata = &checkpoint.metadata;
        let data = match &self.data {
            Some(data) => Images {
                source: data.clone(),
                format: self.format,
            },
            None => trained_on(metadata)?,
        };
        Ok(Source {
            data,
            limit: self.limit,
            view: view(
                self.image_size.unwrap_or(metadata.image_size),
                compute.threads,
            ),
            compute,
            path,
            checkpoint,
        })
    }
}

/// Opens both parts of a data set, with at most so many images of the training and of the test part.
pub(super) fn open_images(
    source: &Images,
    limits: [Option<usize>; 2],
    view: View,
) -> Result<EvalImages> {
    let part = |split, limit: Option<usize>| {
        let whole = source.open(split)?;
        Ok::<_, anyhow::Error>(match limit {
            Some(limit) => limited(whole, limit),
            None => whole,
        })
    };
    let (train, test) = (
        part(Split::Train, limits[0])?,
        part(Split::Test, limits[1])?,
    );
    let images = EvalImages::new(train, test, view.image_size, view.workers);
    images.with_context(|| format!("{} cannot be used for an evaluation", source.source))
}

/// How images of this size are seen with so many threads.
pub(super) fn view(image_size: usize, threads: usize) -> View {
    View {
        image_size,
        // Decoding is a small part of the work beside an encoder.
        workers: (threads / 4).max(1),
    }
}

impl Source {
    /// One part of the data set, no larger than asked for.
    pub(super) fn part(&self, split: Split) -> Result<Arc<dyn Dataset>> {
        let whole = self.data.open(split)?;
        Ok(match self.limit {
            Some(limit) => limited(whole, limit),
            None => whole,
        })
    }

    /// Both parts, with classes.
    pub(super) fn images(&self) -> Result<EvalImages> {
        open_images(&self.data, [self.limit; 2], self.view)
    }

    /// The encoder of the checkpoint.
    pub(super) fn encoder(&self) -> Result<Encoder> {
        self.compute.encoder(&self.checkpoint, &self.path)
    }

    /// The encoder as it was before the first step of the run that wrote the checkpoint. `flag` asked for it.
    pub(super) fn encoder_at_initialisation(&self, flag: &str) -> Result<Encoder> {
        let metadata = &self.checkpoint.metadata;
        let seed = training_value(metadata, "/seed").and_then(Value::as_u64);
        let seed = seed.ok_or_else(|| {
            anyhow!("the checkpoint does not hold the seed of its run: leave {flag} away")
        })?;
        self.compute.untrained(metadata, seed)
    }

    /// What results say about the checkpoint and the device.
    pub(super) fn provenance(self, encoder_sha256: String) -> Provenance {
        Provenance {
            checkpoint: CheckpointOrigin {
                path: self.path,
                encoder_sha256,
                metadata: self.checkpoint.metadata,
            },
            computed_on: self.compute.provenance(),
        }
    }
}

/// A value of the training configuration, whose form belongs to the program that trained.
pub(super) fn training_value<'a>(
    metadata: &'a CheckpointMetadata,
    pointer: &str,
) -> Option<&'a Value> {
    metadata.training.pointer(pointer)
}

/// A bar on stderr, where that is a terminal, for `count` images.
pub(super) fn image_bar(count: usize, message: String) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}%  ETA {eta}")?;
    let bar = ProgressBar::new(count as u64).with_style(style);
    bar.set_message(message);
    Ok(bar)
}
