//! Runs within the test, and what they leave.

use std::collections::BTreeMap;
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;
use eqco_models::ProcessGroup;
use eqco_models::checkpoint;
use eqco_models::profile::Profiler;
use eqco_train::cli::Cli;
use eqco_train::epoch::Position;
use eqco_train::interrupt::Interrupt;
use eqco_train::plan::Plan;
use eqco_train::progress::Progress;
use eqco_train::ranks::Ranks;
use eqco_train::run::Run;
use serde_json::Value;

/// Settings of a run of 20 steps in four epochs of 40 images, a few milliseconds a step.
pub const TINY: [&str; 15] = [
    "--image-size=8",
    "--width=2",
    "--batch-size=8",
    "--epochs=4",
    "--threads=1",
    "--set=schedule.warmup_epochs=1",
    "--set=projection_head.hidden_dim=8",
    "--set=projection_head.embedding_dim=8",
    "--set=data.loader.max_bad_share=0.1",
    "--set=run.geometry_every_steps=3",
    "--set=run.knn_every_epochs=1",
    "--set=run.knn_images=12",
    "--set=evaluation.knn.neighbours=3",
    "--set=run.final_table=false",
    "--set=run.keep_last_checkpoints=0",
];

/// The program with these arguments in this process, on a thread of its own.
pub fn run(arguments: &[&str]) -> Result<Position> {
    run_until(arguments, &Interrupt::default())
}

/// The same, stopped when `interrupt` is requested.
pub fn run_until(arguments: &[&str], interrupt: &Interrupt) -> Result<Position> {
    let line = [&["eqco-train"], arguments].concat();
    let arguments = Cli::try_parse_from(line)?.pretrain;
    let (ranks, profiler) = (Ranks::alone(), Profiler::off());
    let plan = Plan::new(&arguments, &ranks, &ProcessGroup::alone())?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(|| {
        let trainer = plan.trainer(&ranks, &profiler)?;
        let mut progress = Progress::silent();
        let mut run = Run::start(plan, trainer, profiler, &progress)?;
        run.train(interrupt, &mut progress)?;
        run.measure(&mut progress)?;
        let position = run.position();
        run.end()?;
        Ok(position)
    })
}

/// Everything that a run leaves and that does not depend on the clock, by file.
#[derive(Debug, PartialEq)]
pub struct Left {
    /// Lines of the metrics without `timing`.
    pub metrics: Vec<Value>,
    /// Events without their times.
    pub events: Vec<Vec<u8>>,
    /// The bytes of the last checkpoint, and of the results.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Left {
    /// What the run in `folder` has left after `step` steps.
    pub fn of(folder: &Path, step: u64) -> Self {
        let names = [
            format!("checkpoints/step-{step:09}.safetensors"),
            "summary.json".to_owned(),
            "evaluation.json".to_owned(),
            "config.toml".to_owned(),
        ];
        let read = |name: String| Some((name.clone().into(), fs::read(folder.join(name)).ok()?));
        Self {
            metrics: metrics(folder),
            events: events(folder),
            files: names.into_iter().filter_map(read).collect(),
        }
    }

    /// The same with the number of the loader's threads taken out of the settings.
    pub fn without_workers(mut self) -> Self {
        for (name, bytes) in &mut self.files {
            match name.extension().and_then(|extension| extension.to_str()) {
                Some("safetensors") => *bytes = contents(bytes),
                Some("toml") => {
                    let text = String::from_utf8(mem::take(bytes)).unwrap();
                    let lines = text.lines().filter(|line| !line.starts_with("workers = "));
                    *bytes = lines.collect::<Vec<_>>().join("\n").into_bytes();
                }
                _ => (),
            }
        }
        self
    }

    /// Fails with the first difference from `expected`; bytes are not printed.
    pub fn assert_is(&self, expected: &Self, what: &str) {
        for (line, (found, wanted)) in self.metrics.iter().zip(&expected.metrics).enumerate() {
            assert_eq!(found, wanted, "{what}: line {line} of the metrics");
        }
        assert_eq!(self.metrics.len(), expected.metrics.len(), "{what}: lines");
        let is_same = self.events == expected.events;
        assert!(is_same, "{what}: the event files differ");
        let names = |left: &Self| left.files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(expected), "{what}");
        for (name, bytes) in &self.files {
            let is_same = bytes == &expected.files[name];
            assert!(is_same, "{what}: {} has other bytes", name.display());
        }
    }
}

/// Everything in a checkpoint but its checksum and the number of the loader's threads.
fn contents(file: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    fs::write(&path, file).unwrap();
    let mut checkpoint = checkpoint::load(&path).unwrap();
    let workers = checkpoint
        .metadata
        .training
        .pointer_mut("/data/loader/workers");
    *workers.unwrap() = Value::Null;
    let mut bytes = serde_json::to_vec(&checkpoint.metadata).unwrap();
    for (name, tensor) in &checkpoint.tensors {
        bytes.extend(format!("{name} {tensor:?}").into_bytes());
        tensor.write_bytes(&mut bytes).unwrap();
    }
    bytes
}

/// The lines of the metrics, without what depends on the clock.
pub fn metrics(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a line is cut off");
    let line = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().remove("timing");
        record
    };
    text.lines().map(line).collect()
}

/// The lines of the history.
pub fn history(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("history.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The records of the one event file, without checksums, wall times and speeds.
fn events(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths = fs::read_dir(folder.join("tensorboard")).unwrap();
    let path = paths.next().unwrap().unwrap().path();
    assert!(paths.next().is_none(), "one file of events");
    let bytes = fs::read(path).unwrap();
    let (mut rest, mut records) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        let content = &rest[12..12 + length];
        // Field 1 is the time in 8 bytes.
        records.push(without_speeds(&content[9..]));
        rest = &rest[16 + length..];
    }
    records
}

/// Overwrites the four bytes of a value behind the name of a speed.
fn without_speeds(content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    for name in ["images_per_second", "data_wait_share"] {
        let find = |content: &[u8]| {
            let mut windows = content.windows(name.len());
            windows.position(|window| window == name.as_bytes())
        };
        if let Some(place) = find(&content) {
            let value = place + name.len() + 1;
            content[value..value + 4].fill(0);
        }
    }
    content
}

/// A folder as a process leaves it that was killed some time after checkpoint `step`: metrics and events go on behind it.
pub fn killed_after(whole: &Path, step: u64, to: &Path) {
    fs::create_dir_all(to.join("checkpoints")).unwrap();
    fs::create_dir(to.join("tensorboard")).unwrap();
    let name = format!("checkpoints/step-{step:09}.safetensors");
    for file in ["config.toml", "metrics.jsonl", "history.jsonl", &name] {
        fs::copy(whole.join(file), to.join(file)).unwrap();
    }
    for entry in fs::read_dir(whole.join("tensorboard")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(
            &path,
            to.join("tensorboard").join(path.file_name().unwrap()),
        )
        .unwrap();
    }
}
