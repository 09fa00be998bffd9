//! `eqco-train replay`: a step that was not finite, once more.

use std::process::ExitCode;

use anyhow::Result;

use super::pretrain::{start_log, start_threads};
use crate::cli::ReplayArgs;
use crate::nonfinite::Replay;
use crate::progress::Progress;

/// Succeeds if the step is the one that the dump tells of.
pub(super) fn run(arguments: &ReplayArgs) -> Result<ExitCode> {
    let progress = Progress::on_stderr();
    start_log(&progress);
    let replay = Replay::of(&arguments.dump)?;
    start_threads(replay.dump.threads)?;
    let report = replay.run(&mut |line| progress.say(line))?;
    super::print(&report.to_string())?;
    Ok(match report.differences.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
