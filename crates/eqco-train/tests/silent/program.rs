//! The program as a process, on small runs.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

pub use super::clean_environment::program;

/// Settings of a run that takes about ten milliseconds a step without optimisation: three steps an epoch.
pub const SMALL: [&str; 11] = [
    "--data=synthetic",
    "--limit=48",
    "--image-size=8",
    "--width=2",
    "--batch-size=16",
    "--negatives=4",
    "--threads=1",
    "--set=schedule.warmup_epochs=0",
    "--set=projection_head.hidden_dim=8",
    "--set=projection_head.embedding_dim=8",
    "--set=run.final_table=false",
];

/// Runs it to its end: its status, stdout and stderr.
pub fn output(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    read(&program(folder).args(arguments).output().unwrap())
}

pub fn read(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// The lines of a run's metrics of one kind.
pub fn records(run: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|record| record["kind"] == kind).collect()
}
