//! The checkpoints of a run: when one is taken, who writes it, which stay, and which one to go on from.

mod due;
mod keep;
mod newest;
mod writer;

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::Result;
use eqco_models::checkpoint::Checkpoint;

use crate::history::{CheckpointEvent, Event, History};
use crate::run_folder::RunFolder;
use writer::{Job, Outcome, Writer};

pub use due::{Due, Reason};
pub use keep::Keep;
pub(crate) use newest::steps_in;
pub use newest::{Newest, PassedOver, newest_sound, remove_partial, set_aside};

/// Takes checkpoints while a run trains, and sees to it that they get to the disk.
///
/// A checkpoint that cannot be written does not end a run, whose state is in memory still: it is said, and the next one is
/// tried. One that the run ends with has to be written.
#[derive(Debug)]
pub struct Checkpoints {
    folder: RunFolder,
    writer: Writer,
    /// The step of the last one that is on the disk.
    written: Option<u64>,
    /// The step of the last one that could not be written, and why.
    failed: Option<(u64, anyhow::Error)>,
}

impl Checkpoints {
    /// Those of `folder`, of which the one of step `written` is there.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(folder: &RunFolder, keep: Keep, written: Option<u64>) -> Result<Self> {
        Ok(Self {
            folder: folder.clone(),
            writer: Writer::start(folder, keep)?,
            written,
            failed: None,
        })
    }

    /// Whether the checkpoint of `step` is on the disk or on its way there.
    pub fn has(&self, step: u64) -> bool {
        self.written == Some(step) || self.writer.step() == Some(step)
    }

    /// Whether one is being written.
    pub fn is_busy(&self) -> bool {
        self.writer.step().is_some()
    }

    /// Copies the state and has it written beside training. Waits before that for an earlier one, so that there is never more
    /// than one copy. `before` is brought to the disk first: whoever sees the checkpoint sees what led to it.
    ///
    /// # Errors
    /// When the state cannot be copied.
    pub fn take(
        &mut self,
        (step, reason): (u64, Reason),
        before: Vec<File>,
        copy: impl FnOnce() -> Result<Checkpoint>,
        history: &mut History,
    ) -> Result<()> {
        let asked = Instant::now();
        while self.is_busy() {
            self.settle(history, Writer::wait);
        }
        let waited = asked.elapsed();
        let begun = Instant::now();
        let checkpoint = copy()?;
        self.writer.begin(Job {
            step,
            reason,
            path: self.folder.checkpoint(step),
            checkpoint,
            before,
            waited,
            copied: begun.elapsed(),
        });
        Ok(())
    }

    /// Notes what has been written meanwhile, without waiting.
    pub fn collect(&mut self, history: &mut History) {
        self.settle(history, Writer::poll);
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// When the last checkpoint could not be written.
    pub fn finish(&mut self, history: &mut History) -> Result<()> {
        while self.is_busy() {
            self.settle(history, Writer::wait);
        }
        match self.failed.take() {
            Some((step, error)) if self.written.is_none_or(|written| written < step) => Err(error),
            _ => Ok(()),
        }
    }

    fn settle(&mut self, history: &mut History, outcome: fn(&mut Writer) -> Option<Outcome>) {
        let Some(outcome) = outcome(&mut self.writer) else {
            return;
        };
        let step = outcome.step;
        let event = CheckpointEvent::of(&outcome);
        match outcome.result {
            Ok(_) => self.written = Some(step),
            Err(error) => {
                let error = error.context(format!("the checkpoint of step {step} is not written"));
                // At the end nothing goes on: there it is the error of the run.
                if !matches!(outcome.reason, Reason::Stop | Reason::End) {
                    tracing::error!("{error:#}; training goes on, and the next one will be tried");
                }
                self.failed = Some((step, error));
            }
        }
        history.note(Event::Checkpoint(event));
    }
}

/// Seconds of a duration, for records.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

impl CheckpointEvent {
    fn of(outcome: &Outcome) -> Self {
        let written = outcome.result.as_ref().ok();
        Self {
            step: outcome.step,
            reason: outcome.reason,
            waited_seconds: seconds(outcome.waited),
            copy_seconds: seconds(outcome.copied),
            write_seconds: seconds(outcome.elapsed),
            bytes: written.map(|written| written.bytes),
            problem: (outcome.result.as_ref().err()).map(|error| format!("{error:#}")),
        }
    }
}

#[cfg(test)]
mod tests;
