//! What rank 0 writes a run to.

use std::time::Instant;

use anyhow::Result;

use crate::checkpoints::{Checkpoints, Due, Keep};
use crate::history::{Event, History, StartEvent};
use crate::journal::{Journal, JournalLength};
use crate::metrics::COMMIT;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::resume::Beginning;
use crate::run_folder::{RunFolder, RunLock, this_process};

/// The run folder and what is open in it, but for the journal. Fields are dropped in their order: the lock is the last.
pub(super) struct RunFiles {
    pub(super) checkpoints: Checkpoints,
    pub(super) due: Due,
    pub(super) history: History,
    pub(super) folder: RunFolder,
    _lock: RunLock,
}

impl RunFiles {
    /// Makes the folder of `plan`, or goes on in it, and tells people and the history how.
    pub(super) fn open(plan: &mut Plan, progress: &Progress) -> Result<(Self, Journal)> {
        let folder = match plan.opened.beginning {
            Beginning::New => RunFolder::create(&plan.folder)?,
            Beginning::Again | Beginning::Resumed(_) => RunFolder::reuse(&plan.folder)?,
        };
        let (lock, taken_over_from) = match plan.opened.lock.take() {
            Some(held) => held,
            None => RunLock::take(folder.path())?,
        };
        if let Some(owner) = &taken_over_from {
            progress.say(&format!(
                "lock     taken over from {owner}, which has ended without giving it back"
            ));
        }
        let journal = journal(plan, &folder, progress)?;
        folder.write_config(&plan.config().to_toml())?;
        let mut history = History::open(&folder);
        history.note(Event::Start(start(plan, taken_over_from)));

        let run = &plan.config().run;
        let keep = Keep::new(run, plan.position.steps_per_epoch);
        let written = match plan.opened.beginning {
            Beginning::Resumed(_) => Some(plan.position.next_step),
            _ => None,
        };
        let files = Self {
            checkpoints: Checkpoints::new(&folder, keep, written)?,
            due: Due::new(run, Instant::now()),
            history,
            folder,
            _lock: lock,
        };
        Ok((files, journal))
    }
}

/// The metrics and events up to the checkpoint, without what a process that was killed has written after it.
fn journal(plan: &Plan, folder: &RunFolder, progress: &Progress) -> Result<Journal> {
    let resumed = match &plan.opened.beginning {
        Beginning::New => return Ok(Journal::open(folder)?),
        Beginning::Again => {
            progress.say("resumed  before the first checkpoint: the run begins again");
            return Ok(Journal::resume(folder, JournalLength::default())?);
        }
        Beginning::Resumed(resumed) => resumed,
    };
    progress.say(&resumed.explain(&plan.changes));
    resumed.clear_up(folder);
    folder.remove_results()?;
    let wanted = resumed.state.journal;
    let journal = Journal::resume(folder, wanted)?;
    let found = journal.length();
    if found != wanted {
        tracing::warn!(
            "metrics.jsonl has {} of the {} lines that were written before the checkpoint, and the event file {} of {} \
             records: somebody has changed them; training itself goes on exactly",
            found.metrics_lines,
            wanted.metrics_lines,
            found.event_records,
            wanted.event_records
        );
    }
    Ok(journal)
}

fn start(plan: &Plan, taken_over_from: Option<String>) -> StartEvent {
    let (checkpoint, passed_over) = match &plan.opened.beginning {
        Beginning::Resumed(resumed) => {
            let name = resumed.path.file_name().unwrap_or_default();
            let problems = resumed.passed_over.iter().map(|over| over.problem.clone());
            (
                Some(name.to_string_lossy().into_owned()),
                problems.collect(),
            )
        }
        _ => (None, Vec::new()),
    };
    StartEvent {
        step: plan.position.next_step,
        checkpoint,
        passed_over,
        changes: plan.changes.iter().map(ToString::to_string).collect(),
        taken_over_from,
        process: this_process(),
        program: format!("{} ({COMMIT})", env!("CARGO_PKG_VERSION")),
        threads: plan.threads,
        ranks: plan.ranks,
    }
}
