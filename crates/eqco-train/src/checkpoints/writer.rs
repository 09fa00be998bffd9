//! The thread that writes checkpoints beside training.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use eqco_models::checkpoint::{self, Checkpoint};

use super::due::Reason;
use super::keep::Keep;
use super::newest::steps_in;
use crate::run_folder::RunFolder;

/// A state to be written.
pub(super) struct Job {
    pub(super) step: u64,
    pub(super) reason: Reason,
    pub(super) path: PathBuf,
    pub(super) checkpoint: Checkpoint,
    /// Brought to the disk before the checkpoint appears.
    pub(super) before: Vec<File>,
    /// How long training waited for the job before, and for the copy.
    pub(super) waited: Duration,
    pub(super) copied: Duration,
}

/// What became of a job.
pub(super) struct Outcome {
    pub(super) step: u64,
    pub(super) reason: Reason,
    pub(super) waited: Duration,
    pub(super) copied: Duration,
    /// The thread's time.
    pub(super) elapsed: Duration,
    pub(super) result: Result<Written>,
}

/// A checkpoint on the disk.
pub(super) struct Written {
    pub(super) bytes: u64,
}

/// Has one job at a time. Dropping it waits for that job, so that an error elsewhere leaves a whole checkpoint.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
    step: Option<(u64, Reason)>,
}

impl Writer {
    pub(super) fn start(folder: &RunFolder, keep: Keep) -> Result<Self> {
        let (jobs, take) = channel::<Job>();
        let (give, outcomes) = channel();
        let folder = folder.clone();
        let thread = thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || {
                for job in take {
                    // Nobody listens any more only when the run is over.
                    let _ = give.send(done(job, &folder, keep));
                }
            })
            .context("the thread that writes checkpoints cannot be started")?;
        Ok(Self {
            jobs: Some(jobs),
            outcomes,
            thread: Some(thread),
            step: None,
        })
    }

    /// The step whose checkpoint is being written.
    pub(super) fn step(&self) -> Option<u64> {
        self.step.map(|(step, _)| step)
    }

    /// Hands a job over; there must be none.
    pub(super) fn begin(&mut self, job: Job) {
        self.step = Some((job.step, job.reason));
        if let Some(jobs) = &self.jobs {
            // Fails when the thread is gone, which waiting for the outcome reports.
            let _ = jobs.send(job);
        }
    }

    /// Waits for the job in hand; `None` if there is none.
    pub(super) fn wait(&mut self) -> Option<Outcome> {
        let (step, reason) = self.step.take()?;
        Some(self.outcomes.recv().unwrap_or_else(|_| Outcome {
            step,
            reason,
            waited: Duration::ZERO,
            copied: Duration::ZERO,
            elapsed: Duration::ZERO,
            result: Err(anyhow!("the thread that writes checkpoints has ended")),
        }))
    }

    /// The job in hand if it is done.
    pub(super) fn poll(&mut self) -> Option<Outcome> {
        let outcome = self.outcomes.try_recv().ok()?;
        self.step = None;
        Some(outcome)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn done(job: Job, folder: &RunFolder, keep: Keep) -> Outcome {
    let begun = Instant::now();
    let result = write(&job);
    if result.is_ok() {
        remove_expendable(folder, keep, job.step);
    }
    Outcome {
        step: job.step,
        reason: job.reason,
        waited: job.waited,
        copied: job.copied,
        elapsed: begun.elapsed(),
        result,
    }
}

fn write(job: &Job) -> Result<Written> {
    for file in &job.before {
        // Devices and pipes in a file's place cannot be synchronised, and need not be.
        if file.metadata().is_ok_and(|about| about.is_file()) {
            file.sync_data()
                .context("the metrics are not on the disk")?;
        }
    }
    checkpoint::save(&job.path, &job.checkpoint)?;
    let bytes = fs::metadata(&job.path).map_or(0, |about| about.len());
    Ok(Written { bytes })
}

fn remove_expendable(folder: &RunFolder, keep: Keep, newest: u64) {
    for step in keep.expendable(&steps_in(&folder.checkpoints()), newest) {
        let path = folder.checkpoint(step);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!("{} cannot be removed: {error}", path.display());
        }
    }
}
