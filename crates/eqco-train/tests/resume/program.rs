//! The program as a process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub use super::clean_environment::program;

/// Settings of a run that takes about ten milliseconds a step without optimisation: three steps an epoch.
pub const SMALL: [&str; 12] = [
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
    "--set=evaluation.knn.neighbours=5",
    "--set=evaluation.linear_probe.epochs=2",
];

/// Runs it to its end.
pub fn output(folder: &Path, arguments: &[&str]) -> Output {
    program(folder).args(arguments).output().unwrap()
}

/// Runs it to its end, which must be a good one. What it has written to stderr.
pub fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = output(folder, arguments);
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    told
}

/// Starts it with its stderr to be read line by line.
pub fn start(folder: &Path, arguments: &[&str]) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = program(folder);
    let mut child = command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    (child, lines.map(Result::unwrap))
}

/// Sends it a signal by name.
pub fn signal(child: &Child, name: &str) {
    let process = child.id().to_string();
    let status = Command::new("kill").args([name, &process]).status();
    assert!(status.unwrap().success());
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
