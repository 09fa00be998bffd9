//! `cargo xtask fetch`: data sets from their manifests, downloaded, verified, unpacked.
//!
//! A data set appears under its name only when it is complete: everything before that happens in
//! the folder `.downloads` beside it. Other verbs bring programs in the same way, from manifests of their own.

mod digest;
mod download;
mod full_disk;
mod http;
mod manifest;
#[cfg(test)]
pub mod server;
#[cfg(test)]
mod tests;
mod unpack;

use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tokio::task::{JoinSet, LocalSet};

use crate::repository;
use download::Downloader;
use manifest::RemoteFile;

pub use download::Manners;
pub use manifest::Manifest;

/// Lists what a data set was made from, in the form of the program sha256sum.
const RECEIPT: &str = ".fetched";

/// Download data sets into data/fetched, checked and unpacked.
///
/// A download that was cut goes on where it stopped. Proxies are not used: where one is needed,
/// bring the files by other means and name them with --from.
#[derive(clap::Args)]
pub struct Arguments {
    /// Data sets to fetch: the names of the manifests in data/
    #[arg(required_unless_present = "list")]
    names: Vec<String>,
    /// Take files that are already on disk: the file, or a folder that holds it
    #[arg(long, value_name = "PATH")]
    from: Vec<PathBuf>,
    /// Put the data sets into this folder rather than data/fetched
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Say which data sets there are, and under which licences
    #[arg(long)]
    list: bool,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let manifests = repository::root().join("data");
    let out = match &arguments.out {
        Some(folder) => folder.clone(),
        None => manifests.join("fetched"),
    };
    if arguments.list {
        return list(&manifests, &out);
    }
    ensure!(
        arguments.from.is_empty() || arguments.names.len() == 1,
        "--from goes with one data set at a time"
    );
    for name in &arguments.names {
        let manifest = Manifest::load(&manifests, name)?;
        let folder = fetch(&manifest, &arguments.from, &out, Manners::default())
            .with_context(|| format!("{name} is not fetched"))?;
        println!("{name}: {}", folder.display());
    }
    Ok(())
}

fn list(manifests: &Path, out: &Path) -> Result<()> {
    for name in manifest::names(manifests)? {
        let manifest = Manifest::load(manifests, &name)?;
        let state = if is_complete(&manifest, &out.join(&name)) {
            "fetched"
        } else {
            "not fetched"
        };
        println!(
            "{name} ({state}, {})",
            HumanBytes(manifest.download_bytes())
        );
        println!("    {}", manifest.title);
        println!("    layout: {}", manifest.format);
        println!("    licence: {}", manifest.licence);
        println!("    {}", manifest.homepage);
    }
    Ok(())
}

/// Makes sure that what `manifest` describes is complete below `out`, and returns its folder.
///
/// Files are taken from the places `from` unless there are none, and are downloaded then.
pub fn fetch(
    manifest: &Manifest,
    from: &[PathBuf],
    out: &Path,
    manners: Manners,
) -> Result<PathBuf> {
    bring(manifest, from, out, manners).map_err(|error| full_disk::explain(error, manifest, out))
}

fn bring(manifest: &Manifest, from: &[PathBuf], out: &Path, manners: Manners) -> Result<PathBuf> {
    let target = out.join(&manifest.name);
    if is_complete(manifest, &target) {
        return Ok(target);
    }
    if target.exists() {
        bail!(
            "{0} is there already, but not from this manifest\nhint: move it away and try again",
            target.display()
        );
    }
    eprintln!("{}: {}", manifest.name, manifest.title);
    eprintln!("licence: {} ({})", manifest.licence, manifest.homepage);

    let work = out.join(".downloads").join(&manifest.name);
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let lock = File::create(work.join("lock"))?;
    if lock.try_lock().is_err() {
        bail!("another process is fetching {}", manifest.name);
    }
    let sources = if from.is_empty() {
        block_on(download_all(manifest, &work, manners))??
    } else {
        find_all(manifest, from)?
    };
    install(manifest, &sources, &work, &target)?;
    fs::remove_dir_all(&work)?;
    Ok(target)
}

/// Runs a future with all the tasks it spawns on this thread: the network is the bottleneck.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(LocalSet::new().block_on(&runtime, future))
}

/// Downloads all files at the same time.
async fn download_all(manifest: &Manifest, work: &Path, manners: Manners) -> Result<Vec<PathBuf>> {
    let progress = progress_bar(manifest.download_bytes());
    let downloader = Downloader::new(manners, progress.clone())?;
    let mut running = JoinSet::new();
    for file in manifest.files.clone() {
        let (downloader, work) = (downloader.clone(), work.to_path_buf());
        running.spawn_local(async move { downloader.download(file, work).await });
    }
    while let Some(outcome) = running.join_next().await {
        outcome??;
    }
    progress.finish_and_clear();
    let paths = manifest.files.iter().map(|file| work.join(&file.name));
    Ok(paths.collect())
}

/// Vanishes when standard error is not a terminal.
fn progress_bar(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Finds and verifies all files on disk.
fn find_all(manifest: &Manifest, from: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let files = manifest.files.iter();
    files.map(|file| find(file, from)).collect()
}

fn find(file: &RemoteFile, from: &[PathBuf]) -> Result<PathBuf> {
    let mut places = from.iter().map(|place| match place.is_dir() {
        true => place.join(&file.name),
        false => place.clone(),
    });
    let named = |path: &PathBuf| path.ends_with(&file.name) && path.is_file();
    let Some(path) = places.find(named) else {
        bail!(
            "{} is not among the places given with --from\n\
             hint: it is published at {}",
            file.name,
            file.urls.join(" and ")
        );
    };
    let got = digest::identity(&path)?;
    if file.repacked.as_ref() != Some(&got)
        && let Err(difference) = digest::check(&file.identity(), &got)
    {
        bail!(
            "{} is not the published file: {difference}\nhint: take it from {}",
            path.display(),
            file.urls.join(" or ")
        );
    }
    Ok(path)
}

/// Unpacks the verified `sources` and gives the result its name in one step.
fn install(manifest: &Manifest, sources: &[PathBuf], work: &Path, target: &Path) -> Result<()> {
    let unpacked = work.join("unpacked");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)?;
    }
    fs::create_dir(&unpacked)?;
    let mut budget = unpack::Budget::new(manifest.max_unpacked_bytes);
    for (file, source) in manifest.files.iter().zip(sources) {
        unpack::unpack(file, source, &unpacked, &mut budget)?;
    }
    fs::write(unpacked.join(RECEIPT), receipt(manifest))?;
    fs::rename(&unpacked, target).with_context(|| format!("cannot make {}", target.display()))
}

/// Is all of `manifest` in the folder `target`?
pub fn is_complete(manifest: &Manifest, target: &Path) -> bool {
    fs::read_to_string(target.join(RECEIPT)).is_ok_and(|text| text == receipt(manifest))
}

fn receipt(manifest: &Manifest) -> String {
    let line = |file: &RemoteFile| format!("{}  {}\n", file.sha256, file.name);
    manifest.files.iter().map(line).collect()
}
