//! `cargo xtask fuzz`: random inputs for everything that reads bytes which somebody else has written.
//!
//! The targets are a workspace of their own in `fuzz/`, in cargo-fuzz's layout, so that `cargo fuzz` runs them as well. This verb
//! needs no nightly toolchain and nothing installed but a C++ compiler, for libFuzzer: it gives the compiler the flags that
//! cargo-fuzz would give.

mod build;
mod outcome;
mod table;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::repository;
use outcome::Outcome;

/// What a target may take: sizes that a file claims are checked before anything is allocated for them.
const MOST_MEMORY_MIB: u32 = 512;

/// Seconds after which a single input counts as a hang.
const LONGEST_RUN_SECONDS: u32 = 10;

/// Names the folder that a target writes its first inputs to, instead of running.
const SEEDS_VARIABLE: &str = "EQCO_FUZZ_SEEDS";

/// Build and run fuzz targets, each from valid files and from what earlier runs found.
#[derive(clap::Args)]
pub struct Arguments {
    /// All if none is named
    targets: Vec<String>,
    /// For how long each of them runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// See whether the targets compile, without sanitizer or C++ compiler, and run nothing
    #[arg(long, conflicts_with_all = ["targets", "seconds"])]
    check: bool,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let root = repository::root();
    if arguments.check {
        return repository::run(&mut build::check(&root)?);
    }
    let all = names(&root)?;
    let targets = chosen(&all, &arguments.targets)?;
    let folder = build::build(&root, &targets)?;
    let mut outcomes = Vec::new();
    for name in &targets {
        let target = Target::new(&root, &folder, name);
        eprintln!("== {name}");
        outcomes.push((name.clone(), target.fuzz(arguments.seconds)?));
    }
    print!("{}", table::text(&outcomes));
    let found = outcomes.iter().flat_map(|(_, outcome)| &outcome.artifact);
    let found: Vec<&String> = found.collect();
    if !found.is_empty() {
        bail!(
            "{} targets failed\nhint: run the program of the target with the file of the input that is named above",
            found.len()
        );
    }
    Ok(())
}

/// The names of all targets, sorted.
fn names(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("fuzz/fuzz_targets");
    let files =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        names.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

fn chosen(all: &[String], wanted: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!(
            "no fuzz target is called `{unknown}`\nhint: known are {}",
            all.join(", ")
        );
    }
    Ok(if wanted.is_empty() { all } else { wanted }.to_vec())
}

/// A target that has been built, and the folders that it works with.
struct Target {
    program: PathBuf,
    corpus: PathBuf,
    artifacts: PathBuf,
    log: PathBuf,
}

impl Target {
    fn new(root: &Path, folder: &Path, name: &str) -> Self {
        let fuzz = root.join("fuzz");
        Self {
            program: folder.join(name),
            corpus: fuzz.join("corpus").join(name),
            artifacts: fuzz.join("artifacts").join(name),
            log: folder.join(format!("{name}.log")),
        }
    }

    /// Makes the first inputs and runs the target.
    fn fuzz(&self, seconds: u64) -> Result<Outcome> {
        for folder in [&self.corpus, &self.artifacts] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut seeds = Command::new(&self.program);
        repository::run(seeds.env(SEEDS_VARIABLE, &self.corpus))?;
        let log = File::create(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let status = self.command(seconds).stderr(log).status();
        let status = status.with_context(|| format!("cannot start {}", self.program.display()))?;
        let text =
            fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        let outcome = Outcome::parse(
            &String::from_utf8_lossy(&text),
            Duration::from_secs(seconds),
        );
        ensure!(
            status.success() || outcome.artifact.is_some(),
            "{} failed ({status}); its messages are in {}",
            self.program.display(),
            self.log.display()
        );
        if let Some(artifact) = &outcome.artifact {
            eprintln!("{}\n{} {artifact}", outcome.reason, self.program.display());
        }
        Ok(outcome)
    }

    fn command(&self, seconds: u64) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(&self.corpus)
            .arg(format!("-artifact_prefix={}/", self.artifacts.display()))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={LONGEST_RUN_SECONDS}"))
            .arg(format!("-rss_limit_mb={MOST_MEMORY_MIB}"))
            .arg(format!("-malloc_limit_mb={MOST_MEMORY_MIB}"))
            .arg("-print_final_stats=1")
            // Freed memory that is kept from being used again counts as the process's own.
            .env("ASAN_OPTIONS", "quarantine_size_mb=16");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_targets_run_unless_some_are_named() {
        let all = ["idx", "tar"].map(str::to_owned);
        assert_eq!(chosen(&all, &[]).unwrap(), all);
        assert_eq!(chosen(&all, &all[1..]).unwrap(), all[1..]);
        let error = chosen(&all, &["tra".to_owned()]).unwrap_err().to_string();
        assert!(error.ends_with("known are idx, tar"), "{error}");
    }

    #[test]
    fn every_target_of_this_repository_is_declared_and_has_seeds() {
        let root = repository::root();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        let manifest: toml::Table = read("fuzz/Cargo.toml").parse().unwrap();
        let programs = manifest["bin"].as_array().unwrap().iter();
        let declared: Vec<_> = programs
            .map(|program| program["name"].as_str().unwrap())
            .collect();
        let names = names(&root).unwrap();
        assert_eq!(declared, names);
        assert!(names.len() >= 12, "{names:?}");
        let seeds = read("fuzz/src/seeds.rs");
        for name in &names {
            assert!(seeds.contains(&format!("{name:?} => ")), "{name}");
            let target = read(&format!("fuzz/fuzz_targets/{name}.rs"));
            assert!(target.contains(&format!("targets::{name}::check(data)")));
        }
        assert!(seeds.contains(&format!("{SEEDS_VARIABLE:?}")));
    }

    #[test]
    fn the_limits_are_those_of_the_command_line() {
        let target = Target::new(Path::new("/r"), Path::new("/t"), "idx");
        let shown = repository::shown(&target.command(7));
        assert_eq!(
            shown,
            "idx /r/fuzz/corpus/idx -artifact_prefix=/r/fuzz/artifacts/idx/ -max_total_time=7 -timeout=10 \
             -rss_limit_mb=512 -malloc_limit_mb=512 -print_final_stats=1"
        );
    }
}
