//! What befell a run: starts, checkpoints, stops, what was changed when it went on. `metrics.jsonl` is what training did and
//! is the same however often a run was stopped; this file tells how often.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::checkpoints::Reason;
use crate::run_folder::RunFolder;

/// One line of `history.jsonl`; `kind` tells which.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A process has begun, or gone on with, the run.
    Start(StartEvent),
    /// A checkpoint has got to the disk, or has not.
    Checkpoint(CheckpointEvent),
    /// Training was asked to stop after so many steps.
    Stop {
        /// Steps done.
        step: u64,
    },
    /// All epochs are done, and the encoder has been measured if that was wanted.
    End {
        /// Steps done.
        step: u64,
    },
}

/// A process has begun, or gone on with, the run.
#[derive(Clone, Debug, Serialize)]
pub struct StartEvent {
    /// Steps done before.
    pub step: u64,
    /// The checkpoint that it went on from, if there was one.
    pub checkpoint: Option<String>,
    /// Newer checkpoints that could not be read, with what is wrong.
    pub passed_over: Vec<String>,
    /// Settings that are others than before: `threads: 1 -> 2`.
    pub changes: Vec<String>,
    /// Who had the run folder and ended without giving it back.
    pub taken_over_from: Option<String>,
    /// The process and its machine.
    pub process: String,
    /// Version and commit of the program.
    pub program: String,
    /// Threads of the kernels.
    pub threads: usize,
    /// Processes that share every batch.
    pub ranks: usize,
}

/// What became of a checkpoint, and what it cost.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointEvent {
    /// Steps that it has seen.
    pub step: u64,
    /// Why it was taken.
    pub reason: Reason,
    /// How long training stood still because the checkpoint before was still being written.
    pub waited_seconds: f64,
    /// How long training stood still for the copy of its state.
    pub copy_seconds: f64,
    /// How long writing took beside training.
    pub write_seconds: f64,
    /// Size of the file; null if there is none.
    pub bytes: Option<u64>,
    /// Why there is none.
    pub problem: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since 1970, by the clock on the wall.
    time: f64,
    #[serde(flatten)]
    event: &'a Event,
}

/// The file, or none. No run depends on it: what cannot be written is said in the log.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    file: Option<File>,
}

impl History {
    /// Opens the history of `folder` for appending.
    pub fn open(folder: &RunFolder) -> Self {
        let path = folder.history();
        let file = match File::options().create(true).append(true).open(&path) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::warn!("{} cannot be written: {error}", path.display());
                None
            }
        };
        Self { path, file }
    }

    /// Writes a line.
    pub fn note(&mut self, event: Event) {
        let Some(file) = &mut self.file else { return };
        let line = Line {
            time: wall_time(),
            event: &event,
        };
        // An event holds texts and finite numbers.
        let mut line = serde_json::to_vec(&line).unwrap_or_default();
        line.push(b'\n');
        let length = file.metadata().map(|about| about.len());
        if let Err(error) = file.write_all(&line) {
            // The disk may have become full in the middle of the line.
            let _ = length.and_then(|length| file.set_len(length));
            tracing::warn!("{} cannot be written: {error}", self.path.display());
        }
    }
}

/// Seconds since 1970. Nothing that a run does depends on it.
pub(crate) fn wall_time() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
