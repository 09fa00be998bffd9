//! One pass over the data: batches in, steps done, time accounted for.

use std::time::{Duration, Instant};

use anyhow::Result;
use candle_core::Tensor;
use eqco_core::BatchStatistics;
use eqco_data::loader::Batch;
use eqco_data::{Cursor, DataError};
use eqco_eval::Geometry;
use eqco_models::ProcessGroup;
use eqco_models::profile::{Phase, Profiler, Work};

use crate::config::RunConfig;
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::metrics::{Record, StepRecord, Timing};
use crate::progress::{Progress, Standing};
use crate::step::{StepReport, ensure_finite};

/// Where a run stands. Everything that a resumed run needs to go on with the loop is `next_step`.
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
}

/// Means and times of the steps of one epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochTotals {
    steps: u64,
    images: usize,
    loss: f64,
    contrast_top1: f64,
    gradient_scale: f64,
    guaranteed_bound: f64,
    elapsed: Duration,
    data_wait: Duration,
}

impl EpochTotals {
    fn add(
        &mut self,
        images: usize,
        statistics: &BatchStatistics,
        elapsed: Duration,
        data_wait: Duration,
    ) {
        self.steps += 1;
        self.images += images;
        self.loss += statistics.loss;
        self.contrast_top1 += statistics.contrast_top1;
        self.gradient_scale += statistics.gradient_scale;
        self.guaranteed_bound += statistics.guaranteed_bound;
        self.elapsed += elapsed;
        self.data_wait += data_wait;
    }

    /// Mean loss in nats; 0 before the first step.
    pub fn loss(&self) -> f64 {
        self.loss / self.steps.max(1) as f64
    }

    /// Mean contrast top-1, 0 to 1; 0 before the first step.
    pub fn contrast_top1(&self) -> f64 {
        self.contrast_top1 / self.steps.max(1) as f64
    }

    /// Mean gradient scale, 0 to 1; 0 before the first step.
    pub fn gradient_scale(&self) -> f64 {
        self.gradient_scale / self.steps.max(1) as f64
    }

    /// Mean guaranteed bound on mutual information in nats; 0 before the first step.
    pub fn guaranteed_bound(&self) -> f64 {
        self.guaranteed_bound / self.steps.max(1) as f64
    }

    /// Steps done, and their time with all waiting.
    pub fn steps_and_time(&self) -> (u64, Duration) {
        (self.steps, self.elapsed)
    }

    /// Where the time went.
    pub fn timing(&self) -> Timing {
        Timing::new(
            self.images,
            self.elapsed.as_secs_f64(),
            self.data_wait.as_secs_f64(),
        )
    }

    /// The figures for the display.
    pub fn standing(&self, position: &Position, context: &EpochContext<'_>) -> Standing {
        let started = context.started;
        let timing = self.timing();
        let last_step = position.next_step.saturating_sub(1);
        let done = position.next_step.saturating_sub(started.1).max(1);
        let left = position.total_steps().saturating_sub(position.next_step);
        Standing {
            epoch: last_step / position.steps_per_epoch + 1,
            epochs: position.epochs,
            step: last_step % position.steps_per_epoch + 1,
            steps: position.steps_per_epoch,
            loss: self.loss(),
            chance_loss: context.chance_loss,
            contrast_top1: self.contrast_top1(),
            gradient_scale: self.gradient_scale(),
            guaranteed_bound: self.guaranteed_bound(),
            knn_top1: context.knn_top1,
            images_per_second: timing.images_per_second,
            data_wait_share: timing.data_wait_share(),
            elapsed: self.elapsed,
            remaining: started.0.elapsed().mul_f64(left as f64 / done as f64),
        }
    }
}

/// A step that has been sent off, and the time of its turn.
struct Done {
    /// Counted from 0 over the whole run.
    step: u64,
    report: StepReport,
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

/// Does the steps of `batches`, which go from `position` to the end of its epoch, and moves `position` along. Ends early,
/// after a whole step, when the interrupt is requested.
///
/// Where statistics come from a device they are waited for when the next step has been sent off, so that the device always
/// has work.
///
/// # Errors
/// Those of the loader, of `step` and of the metrics file, and a loss that is not finite. `position` is that of the step that
/// failed then.
pub fn train_epoch(
    mut batches: impl Iterator<Item = Result<Batch, DataError>>,
    position: &mut Position,
    context: &mut EpochContext<'_>,
    mut step: impl FnMut(&Batch) -> Result<StepReport>,
) -> Result<EpochTotals> {
    let mut totals = EpochTotals::default();
    let mut under_way: Option<Done> = None;
    while !context.is_interrupted()? {
        let span = context
            .profiler
            .span(|| Work::new("waiting for data", Phase::Other));
        let asked = Instant::now();
        let Some(batch) = batches.next().transpose()? else {
            break;
        };
        drop(span);
        let data_wait = asked.elapsed();
        let report = step(&batch)?;
        let mut done = Done {
            step: position.next_step,
            images: batch.len() * context.group.size(),
            elapsed: asked.elapsed(),
            data_wait,
            report,
        };
        position.next_step += 1;
        if let Some(earlier) = under_way.take() {
            account(earlier, position, context, &mut totals)?;
            done.elapsed = asked.elapsed();
        }
        if done.report.statistics.are_known() {
            account(done, position, context, &mut totals)?;
        } else {
            under_way = Some(done);
        }
    }
    if let Some(last) = under_way {
        account(last, position, context, &mut totals)?;
    }
    Ok(totals)
}

/// Waits for the statistics of a step, and adds, writes and shows them.
fn account(
    done: Done,
    position: &mut Position,
    context: &mut EpochContext<'_>,
    totals: &mut EpochTotals,
) -> Result<()> {
    let geometry = geometry(&done.report, done.step, context.run)?;
    let waited = Instant::now();
    let statistics = context.group.statistics(&done.report.statistics.wait()?)?;
    let elapsed = done.elapsed + waited.elapsed();
    if let Err(error) = ensure_finite(&statistics, done.step) {
        position.next_step = done.step;
        return Err(error);
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
            timing: Timing::new(
                done.images,
                elapsed.as_secs_f64(),
                done.data_wait.as_secs_f64(),
            ),
        }))?;
    }
    let standing = totals.standing(position, context);
    context.progress.update(&standing);
    Ok(())
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
