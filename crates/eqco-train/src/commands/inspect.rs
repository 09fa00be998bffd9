//! `eqco-train inspect`: what a data set holds, and what training sees of it.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use eqco_data::recipe::RecipeConfig;
use eqco_data::{Dataset, Split, encode, open_as};
use eqco_eval::{EvalError, WholeFile};

use super::pretrain::start_log;
use crate::cli::{InspectArgs, SplitArg};
use crate::config::TrainConfig;
use crate::inspect::{Grid, HeaderSample, LabelCounts, Report, Scan, views_grid};
use crate::plan::training_images;
use crate::progress::Progress;

pub(super) fn run(arguments: &InspectArgs) -> Result<ExitCode> {
    let mut progress = Progress::on_stderr();
    start_log(&progress);
    let config = arguments.config.resolve()?.config;
    let dataset = match arguments.split {
        SplitArg::Train => training_images(&config)?,
        SplitArg::Test => open_as(&config.data.source, Split::Test, config.data.format)?,
    };
    // The places of files first, before anything that takes long.
    let grid = arguments.grid.as_deref().map(picture_place).transpose()?;
    let bad_list = arguments
        .bad_list
        .as_deref()
        .map(WholeFile::create)
        .transpose()?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(config.threads)
        .build();
    let pool = pool.with_context(|| format!("{} threads cannot be started", config.threads))?;

    let mut report = pool.install(|| look(arguments, &config, &*dataset, &mut progress))?;
    if let Some(place) = grid {
        progress.update_task("making views", None);
        report.grid = Some(draw(arguments, &config, &dataset, place)?);
    }
    progress.clear();
    if let (Some(place), Some(scan)) = (bad_list, &report.scan) {
        place.write(|out| {
            let mut images = scan.bad.iter();
            images.try_for_each(|image| writeln!(out, "{}\t{}", image.image, image.reason))
        })?;
    }
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => report.text(arguments.classes),
    };
    super::print(&text)?;
    let is_bad = report.scan.is_some_and(|scan| scan.is_too_many());
    Ok(if is_bad {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Everything but the picture, on the current rayon pool.
fn look(
    arguments: &InspectArgs,
    config: &TrainConfig,
    dataset: &dyn Dataset,
    progress: &mut Progress,
) -> Result<Report> {
    let sample = HeaderSample::of(dataset, arguments.sample as usize, |done| {
        progress.update_task("reading headers", Some(done));
    })?;
    let max_bad_share = config.data.loader.max_bad_share;
    let scan = arguments.scan.then(|| {
        Scan::of(dataset, max_bad_share, |done, bad| {
            progress.update_task(&format!("decoding images, {bad} unreadable"), Some(done));
        })
    });
    Ok(Report {
        data: dataset.name().to_owned(),
        split: match arguments.split {
            SplitArg::Train => "train",
            SplitArg::Test => "test",
        },
        images: dataset.len(),
        class_names: dataset.class_names().to_vec(),
        labels: LabelCounts::of(dataset),
        sample,
        grid: None,
        scan: scan.transpose()?,
    })
}

fn picture_place(path: &Path) -> Result<WholeFile, EvalError> {
    if (path.extension()).is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        return WholeFile::create(path);
    }
    Err(EvalError::OutputPlace {
        path: path.to_owned(),
        expected: "a name that ends in .png".to_owned(),
        found: "another one".to_owned(),
        next: "give --grid a name like views.png",
    })
}

/// Writes the picture of views.
fn draw(
    arguments: &InspectArgs,
    config: &TrainConfig,
    dataset: &Arc<dyn Dataset>,
    place: WholeFile,
) -> Result<Grid> {
    let of_config = &config.data.recipe;
    let recipe = match arguments.recipe {
        Some(name) => RecipeConfig::new(name, of_config.image_size),
        None => of_config.clone(),
    };
    let count = usize::from(arguments.grid_images);
    let (picture, views) = views_grid(dataset, &recipe, config.seed, count)?;
    let png = encode::png(&picture)?;
    let path = place.path().to_owned();
    place.write(|out| out.write_all(&png))?;
    Ok(Grid { path, views })
}
