//! One pass over the data: batches in, steps done, time accounted for.

mod totals;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use candle_core::Tensor;
use eqco_data::loader::Batch;
use eqco_data::{Cursor, DataError};
use eqco_eval::Geometry;
use eqco_models::params::ParameterSet;
use eqco_models::profile::{Phase, Profiler, Work};
use eqco_models::{ProcessGroup, total_norm};

use crate::checkpoints::{Due, Reason};
use crate::collapse::{CollapseAlarm, Sight};
use crate::config::RunConfig;
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::metrics::{Record, StepRecord, Timing};
use crate::nonfinite::{Nonfinite, NonfiniteSteps};
use crate::progress::Progress;
use crate::step::StepReport;

pub use totals::{EpochSums, EpochTime, EpochTotals};

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The next step to do, which is the number of steps done, over the whole run.
    pub next_step: u64,
    /// Steps of an epoch, at least 1.
    pub steps_per_epoch: u64,
    /// Epochs of the run.
    pub epochs: u64,
}

impl Position {
    /// The batch of the next step; its epoch is `epochs` when the run is over.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.next_step / self.steps_per_epoch,
            next_batch: self.next_step % self.steps_per_epoch,
        }
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.epochs * self.steps_per_epoch
    }

    /// Whether every step has been done.
    pub fn is_finished(&self) -> bool {
        self.next_step >= self.total_steps()
    }
}

/// What an epoch works with beside its batches.
pub struct EpochContext<'a> {
    /// The processes that train together.
    pub group: &'a ProcessGroup,
    /// Looked at after every step.
    pub interrupt: &'a Interrupt,
    /// The display.
    pub progress: &'a mut Progress,
    /// Where steps are recorded.
    pub journal: &'a mut Journal,
    /// Where waiting for batches is booked.
    pub profiler: &'a Profiler,
    /// What a run writes, and how often.
    pub run: &'a RunConfig,
    /// The loss while all similarities are equal.
    pub chance_loss: f64,
    /// kNN top-1 in percent, once it has been measured.
    pub knn_top1: Option<f64>,
    /// When the run, or this part of a resumed run, began, and at which step.
    pub started: (Instant, u64),
    /// When a checkpoint is due; never, where none is written.
    pub due: Option<Due>,
    /// Where unreadable images are noted.
    pub skipped: &'a mut BTreeSet<u32>,
    /// What is done about steps that are not finite.
    pub nonfinite: &'a mut NonfiniteSteps,
    /// Looks for collapsed embeddings.
    pub collapse: &'a mut CollapseAlarm,
    /// Own keys in the queue by batch of the epoch, where there is a queue.
    pub own_keys: &'a [f64],
}

/// Why steps are not taken for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// There are no more in this epoch.
    EpochIsOver,
    /// A checkpoint is due within the epoch.
    CheckpointIsDue(Reason),
    /// A stop has been asked for.
    StopIsRequested,
}

/// A step that has been sent off, and the time of its turn.
struct Done {
    /// Counted from 0 over the whole run.
    step: u64,
    report: StepReport,
    indices: Vec<u32>,
    images: usize,
    elapsed: Duration,
    data_wait: Duration,
}

impl EpochContext<'_> {
    /// Whether a stop has been asked for, on any rank: all of them stop after the same step.
    fn is_interrupted(&self) -> Result<bool> {
        Ok(self.group.any(self.interrupt.is_requested())?)
    }
}

/// Does the steps of `batches`, which go from `position` to the end of its epoch, until something else has to be done, and moves
/// `position` and `totals` along. Pauses only after whole steps, all of which are accounted for.
///
/// Where statistics come from a device they are waited for when the next step has been sent off, so that the device always
/// has work.
///
/// # Errors
/// Those of the loader, of `step` and of the metrics file, and a step that is not finite. `position` is that of the step that
/// failed then.
pub fn train_epoch(
    batches: &mut impl Iterator<Item = Result<Batch, DataError>>,
    position: &mut Position,
    totals: &mut EpochTotals,
    context: &mut EpochContext<'_>,
    mut step: impl FnMut(&Batch) -> Result<StepReport>,
) -> Result<Pause> {
    let mut under_way: Option<Done> = None;
    let pause = loop {
        if context.is_interrupted()? {
            break Pause::StopIsRequested;
        }
        let span = context
            .profiler
            .span(|| Work::new("waiting for data", Phase::Other));
        let asked = Instant::now();
        let Some(batch) = batches.next().transpose()? else {
            break Pause::EpochIsOver;
        };
        drop(span);
        let data_wait = asked.elapsed();
        let report = step(&batch).or_else(|error| stop(error, &batch.indices, context))?;
        context.skipped.extend(&batch.skipped);
        let mut done = Done {
            step: position.next_step,
            indices: batch.indices.clone(),
            images: batch.len() * context.group.size(),
            elapsed: asked.elapsed(),
            data_wait,
            report,
        };
        position.next_step += 1;
        if let Some(earlier) = under_way.take() {
            account(earlier, position, context, totals)?;
            done.elapsed = asked.elapsed();
        }
        if done.report.statistics.are_known() {
            account(done, position, context, totals)?;
        } else {
            under_way = Some(done);
        }
        if let Some(reason) = due_within_epoch(context.due, position) {
            break Pause::CheckpointIsDue(reason);
        }
    };
    if let Some(last) = under_way {
        account(last, position, context, totals)?;
    }
    Ok(pause)
}

/// The checkpoint that is due after a step that is not the last of its epoch, at whose end there is more to do.
fn due_within_epoch(due: Option<Due>, position: &Position) -> Option<Reason> {
    let is_within = position.cursor().next_batch > 0;
    due.filter(|_| is_within)?
        .after_step(position.next_step, Instant::now())
}

/// Waits for the statistics of a step, and adds, writes and shows them.
fn account(
    done: Done,
    position: &mut Position,
    context: &mut EpochContext<'_>,
    totals: &mut EpochTotals,
) -> Result<()> {
    if let Some(found) = done.report.skipped {
        let to = (&mut *context.journal, &*context.progress);
        return context.nonfinite.skip(found, &done.indices, to);
    }
    let geometry = geometry(&done.report, done.step, context.run)?;
    let waited = Instant::now();
    let statistics = context.group.statistics(&done.report.statistics.wait()?)?;
    let norms = done.report.gradient_norms.map(|norms| norms.wait());
    let norms = norms.transpose()?;
    let elapsed = done.elapsed + waited.elapsed();
    // What could be known before the update has been judged already, and with the parameters' names.
    let about = (done.step, done.report.learning_rate);
    let judged = Nonfinite::judge(
        about,
        &statistics,
        norms.as_deref(),
        &ParameterSet::default(),
    );
    if let Some(found) = judged {
        position.next_step = done.step;
        return context
            .nonfinite
            .stop(found, &done.indices, context.journal);
    }
    totals.add(done.images, &statistics, elapsed, done.data_wait);
    if done.step.is_multiple_of(context.run.log_every_steps) {
        context.journal.write(&Record::Step(StepRecord {
            step: done.step,
            epoch: done.step / position.steps_per_epoch,
            learning_rate: done.report.learning_rate,
            statistics,
            chance_loss: context.chance_loss,
            geometry,
            gradient_norm: norms.as_deref().map(total_norm),
            own_keys: (context.own_keys)
                .get((done.step % position.steps_per_epoch) as usize)
                .copied(),
            timing: Timing::new(
                done.images,
                elapsed.as_secs_f64(),
                done.data_wait.as_secs_f64(),
            ),
        }))?;
    }
    let sight = Sight {
        step: done.step,
        contrast_top1: statistics.contrast_top1,
        geometry,
    };
    for alarm in context.collapse.look(&sight) {
        context.journal.write(&Record::Collapse(alarm))?;
        context.progress.say(&alarm.to_string());
    }
    let standing = totals.standing(position, context);
    context.progress.update(&standing);
    Ok(())
}

/// The error of a step; one that is not finite is written down.
fn stop<T>(error: Error, indices: &[u32], context: &mut EpochContext<'_>) -> Result<T> {
    match error.downcast::<Nonfinite>() {
        Ok(found) => context.nonfinite.stop(found, indices, context.journal),
        Err(other) => Err(other),
    }
}

/// How the embeddings of a step lie, if it is one of those that are looked at.
fn geometry(report: &StepReport, step: u64, run: &RunConfig) -> Result<Option<Geometry>> {
    if run.geometry_every_steps == 0 || !step.is_multiple_of(run.geometry_every_steps) {
        return Ok(None);
    }
    let [queries, keys] = &report.embeddings;
    let (count, dim) = queries.dims2()?;
    let rows = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    Ok((count >= 2)
        .then(|| Ok::<_, candle_core::Error>(Geometry::of(&rows(queries)?, &rows(keys)?, dim)))
        .transpose()?)
}

#[cfg(test)]
mod tests;
