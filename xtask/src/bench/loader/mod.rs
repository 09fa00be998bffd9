//! `cargo xtask bench loader`: what it costs to make views of photographs, to read them from each kind of source, to open a
//! source of a million images, and what a run waits for its loader.

mod cold;
mod index;
mod program;
mod sources;
mod views;
mod wait;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::repository;

/// What loading images costs, part by part, in alternation with what it is compared with.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of JPEG files; `python3 python/cut_photographs.py FOLDER` cuts some like ImageNet's
    #[arg(long, default_value = "data/fetched/photographs")]
    photographs: PathBuf,
    /// How often each side runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// One part of the benchmark instead of all
    #[arg(long)]
    part: Option<Part>,
    /// Views: one JSON object a line rather than a table
    #[arg(long)]
    json: bool,
    /// Cold cache: have the whole system drop its caches, which takes root and disturbs other programs, instead of our files
    #[arg(long)]
    drop_caches: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Views from photographs, in alternation with other libraries where there are any
    Views,
    /// Every kind of source beside a folder, in the page cache
    Sources,
    /// The same out of it
    Cold,
    /// Opening a source of 1,281,167 images
    Index,
    /// What a run of pre-training waits for its loader
    Wait,
}

impl Part {
    fn run(self, arguments: &Arguments, photographs: &Path) -> Result<()> {
        match self {
            Self::Views => views::run(arguments, photographs),
            Self::Sources => sources::run(arguments, photographs),
            Self::Cold => cold::run(arguments, photographs),
            Self::Index => index::run(),
            Self::Wait => wait::run(photographs),
        }
    }
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let photographs = repository::root().join(&arguments.photographs);
    if !photographs.is_dir() && arguments.part != Some(Part::Index) {
        bail!(
            "expected a folder of photographs, found none at {}\nhint: `python3 python/cut_photographs.py {}` cuts them out of \
             Debian's wallpapers, and --photographs names another folder",
            photographs.display(),
            photographs.display()
        );
    }
    let parts = match &arguments.part {
        Some(part) => std::slice::from_ref(part),
        None => Part::value_variants(),
    };
    for part in parts {
        part.run(arguments, &photographs)?;
    }
    Ok(())
}

/// A folder of a part's own, which is removed behind it.
struct Scratch(PathBuf);

impl Scratch {
    /// Beside other build outputs: a folder for temporary files may be in memory, which knows no cold cache.
    fn new(name: &str) -> Result<Self> {
        let folder = repository::root().join("target/bench-loader").join(name);
        // What a run that was killed has left.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever stays is removed by the next run.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
