//! The program as a process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// All that an environment may say about ranks.
const OF_RANKS: [&str; 11] = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_USE_AGENT_STORE",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_LOCALID",
    "EQCO_GROUP_TIMEOUT",
];

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

/// The program in `folder`, as a user's shell would start it there.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eqco-train"));
    command
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .env_remove("CARGO_MANIFEST_DIR")
        .stdin(Stdio::null());
    OF_RANKS.iter().for_each(|variable| {
        command.env_remove(variable);
    });
    command
}

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
