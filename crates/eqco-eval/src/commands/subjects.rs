//! What `knn` and `linear` measure: the encoder of a checkpoint and its baselines, on one data set.

use anyhow::Result;
use clap::Args;
use eqco_eval::{EvalImages, FeaturePair, Representation, raw_pixels, represent};
use eqco_models::Encoder;

use super::source::{CheckpointArgs, DataArgs, Provenance, Source, image_bar};

/// Flags that both commands have.
#[derive(Args, Debug)]
pub(super) struct SubjectArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Measure the same encoder at its initialisation as well
    #[arg(long)]
    untrained: bool,
    /// Measure the pixels themselves as well
    #[arg(long)]
    raw_pixels: bool,
    /// Print one JSON object with the whole protocol instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

/// Representations to be measured, in the order of the table.
pub(super) struct Subjects {
    /// Where the encoder comes from and where it ran.
    pub(super) provenance: Provenance,
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

/// An encoder with its images, before the long part of the work.
pub(super) struct OpenedSubjects<'a> {
    arguments: &'a SubjectArgs,
    source: Source,
    images: EvalImages,
}

impl SubjectArgs {
    /// Starts the threads, reads the checkpoint and opens the data set.
    pub(super) fn open(&self) -> Result<OpenedSubjects<'_>> {
        let source = self.data.open(self.checkpoint.path())?;
        let images = source.images()?;
        Ok(OpenedSubjects {
            arguments: self,
            source,
            images,
        })
    }
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
            source,
            images,
        } = self;
        let found = represent_with_bar(&source.encoder()?, Row::Pretrained.name(), &images)?;
        let mut features = vec![(Row::Pretrained, found.features)];
        if arguments.untrained {
            let encoder = source.encoder_at_initialisation("--untrained")?;
            let untrained = represent_with_bar(&encoder, Row::Untrained.name(), &images)?;
            features.push((Row::Untrained, untrained.features));
        }
        if arguments.raw_pixels {
            features.push((Row::RawPixels, raw_pixels(&images)?));
        }
        let data_name = features[0].1.train().origin().data.clone();
        Ok(Subjects {
            provenance: source.provenance(found.encoder_sha256),
            data_name,
            features,
        })
    }
}

/// [`represent`] with a bar on stderr, where that is a terminal. `name` says which encoder.
pub(super) fn represent_with_bar(
    encoder: &Encoder,
    name: &str,
    images: &EvalImages,
) -> Result<Representation> {
    let bar = image_bar(images.count(), format!("images through the {name} encoder"))?;
    let found = represent(encoder, &format!("{name} encoder"), images, &mut |done| {
        bar.set_position(done as u64)
    });
    bar.finish_and_clear();
    Ok(found?)
}
