//! `eqco-eval report`: a page about runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use eqco_data::Format;
use eqco_eval::find_checkpoint;
use eqco_eval::report::{
    PictureSection, Pictures, Run, choose_for_pictures, find_runs, write_report,
};
use eqco_models::checkpoint;
use eqco_models::error::ModelError;

use super::compute::{Compute, ComputeArgs};
use super::output::print;
use super::source::{Images, open_images, trained_on, view};
use super::subjects::{Row, represent_with_bar};

/// Flags of `report`.
#[derive(Args, Debug)]
pub(super) struct ReportArgs {
    /// Folders of runs, or folders that hold some at most two levels below them
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The page to write; charts and pictures go into a folder beside it
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Images with classes for the pictures: a manifest's name or a path
    /// [default: the data set of that run's training]
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// How the images at that path lie on disk: folder, idx, cifar10, cifar100, imagenet-tar, shards, parquet or packed [default: what is found]
    #[arg(long, value_name = "NAME", requires = "data")]
    format: Option<Format>,
    /// Make the pictures from at most this many training images and this many test images, in balanced classes
    /// [default: the run's own limit on training images, all test images]
    #[arg(long, value_name = "IMAGES")]
    limit: Option<usize>,
    #[command(flatten)]
    compute: ComputeArgs,
    /// The run, by folder or name, whose pictures are shown [default: the one with the best linear top-1]
    #[arg(long, value_name = "RUN")]
    picture: Option<PathBuf>,
}

pub(super) fn run(arguments: &ReportArgs) -> Result<()> {
    let compute = arguments.compute.start()?;
    let folders = find_runs(&arguments.runs)?;
    let runs = folders.iter().map(|folder| Run::read(folder));
    let runs: Vec<Run> = runs.collect::<Result<_, _>>()?;
    for run in &runs {
        for note in run.notes() {
            eprintln!("note: {}: {note}", run.path().display());
        }
    }
    let pictures = picture_section(arguments, &runs, &compute)?;
    let written = write_report(&runs, &pictures, &arguments.out)?;
    print(&format!(
        "{}: {} runs, {} figures, {:.1} MB; the figures as files in {}",
        written.page.display(),
        runs.len(),
        written.figures,
        written.bytes as f64 / 1e6,
        written.files.display()
    ))
}

/// The pictures. What cannot be shown is an error where it was asked for by name, and otherwise a sentence in the report.
fn picture_section(
    arguments: &ReportArgs,
    runs: &[Run],
    compute: &Compute,
) -> Result<PictureSection> {
    let chosen = match &arguments.picture {
        Some(wanted) => Some(find_run(runs, wanted)?),
        None => choose_for_pictures(runs),
    };
    let is_asked_for = arguments.data.is_some() || arguments.picture.is_some();
    let Some(run) = chosen else {
        let reason = "No run has a checkpoint, so that there is no representation to look at.";
        if is_asked_for {
            bail!("none of the runs has a checkpoint: leave --data away");
        }
        return Ok(PictureSection::Absent {
            reason: reason.to_owned(),
        });
    };
    match pictures(arguments, run, compute) {
        Ok(pictures) => Ok(PictureSection::Made(Box::new(pictures))),
        Err(error) if is_asked_for => Err(error),
        Err(error) => {
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            // Other images do not mend a checkpoint.
            let advice = match error.downcast_ref::<ModelError>() {
                Some(_) => "",
                None => " Give its images with --data.",
            };
            let reason = format!(
                "The representation of run {} cannot be shown: {}.{advice}",
                run.name(),
                causes.join(": ")
            );
            eprintln!("note: {reason}");
            Ok(PictureSection::Absent { reason })
        }
    }
}

fn find_run<'a>(runs: &'a [Run], wanted: &Path) -> Result<&'a Run> {
    let unique = |path: &Path| path.canonicalize().ok();
    let by_path = runs
        .iter()
        .find(|run| unique(wanted).is_some() && unique(run.path()) == unique(wanted));
    let by_name = || runs.iter().find(|run| Path::new(run.name()) == wanted);
    by_path.or_else(by_name).with_context(|| {
        let names: Vec<&str> = runs.iter().map(Run::name).take(8).collect();
        format!(
            "--picture: expected one of the runs ({}), got {}",
            names.join(", "),
            wanted.display()
        )
    })
}

fn pictures(arguments: &ReportArgs, run: &Run, compute: &Compute) -> Result<Pictures> {
    let path = find_checkpoint(run.path())?;
    let checkpoint = checkpoint::load(&path)?;
    let images = match (&arguments.data, run.data_source()) {
        (Some(source), _) => Images {
            source: source.clone(),
            format: arguments.format,
        },
        (None, Some(source)) => Images::of_run(source, run.data_format())?,
        (None, None) => trained_on(&checkpoint.metadata)?,
    };
    let limits = match arguments.limit {
        Some(limit) => [Some(limit); 2],
        None => [run.data_limit(), None],
    };
    let images = open_images(
        &images,
        limits,
        view(checkpoint.metadata.image_size, compute.threads),
    )?;
    let encoder = compute.encoder(&checkpoint, &path)?;
    let found = represent_with_bar(&encoder, Row::Pretrained.name(), &images)?;
    Ok(Pictures::new(run, &images, &found.features)?)
}
