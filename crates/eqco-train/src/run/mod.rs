//! A run with its folder: trains, records, takes checkpoints, measures at the end.
//!
//! What is done to `metrics.jsonl`, to the event file and to the weights is a function of the configuration and the step, so
//! that a run that was stopped and resumed leaves what an undisturbed one leaves. Everything else goes to `history.jsonl`.

mod files;
mod record;

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use eqco_data::Cursor;
use eqco_models::ProcessGroup;
use eqco_models::checkpoint::Checkpoint;
use eqco_models::profile::{Phase, Profiler, Report, Work};

use crate::checkpoints::Reason;
use crate::collapse::CollapseAlarm;
use crate::config::TrainConfig;
use crate::epoch::{EpochContext, EpochTotals, Pause, Position, train_epoch};
use crate::final_table;
use crate::history::Event;
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::loop_state::LoopState;
use crate::metrics::{COMMIT, CheckpointRecord, EndRecord, EpochRecord, KnnRecord, Record};
use crate::nonfinite::NonfiniteSteps;
use crate::own_keys;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::resume::Beginning;
use crate::run_folder::RunFolder;
use crate::step::Trainer;
use files::RunFiles;
use record::{chance, run_record};

/// A run under way.
pub struct Run {
    plan: Plan,
    trainer: Trainer,
    group: Arc<ProcessGroup>,
    position: Position,
    /// Those of rank 0; the others write nothing.
    files: Option<RunFiles>,
    journal: Journal,
    /// Of the epoch in hand.
    totals: EpochTotals,
    skipped_images: BTreeSet<u32>,
    knn_top1: Option<f64>,
    nonfinite: NonfiniteSteps,
    collapse: CollapseAlarm,
    profiler: Profiler,
    /// Steps done by this process, and their time with all waiting.
    profiled: (u64, Duration),
}

impl Run {
    /// Makes the run folder, or takes it over as the checkpoint that `trainer` has taken up has left it.
    ///
    /// # Errors
    /// When something cannot be written, or another process is at work in the folder.
    pub fn start(
        mut plan: Plan,
        trainer: Trainer,
        profiler: Profiler,
        progress: &Progress,
    ) -> Result<Self> {
        let group = Arc::clone(trainer.group());
        let (files, journal) = match group.is_first() {
            true => {
                let (files, journal) = RunFiles::open(&mut plan, progress)?;
                (Some(files), journal)
            }
            false => (None, Journal::none()),
        };
        let folder = files.as_ref().map(|files| &files.folder);
        let mut run = Self {
            position: plan.position,
            nonfinite: NonfiniteSteps::new(&plan, folder),
            collapse: collapse_alarm(plan.config()),
            files,
            journal,
            totals: EpochTotals::default(),
            skipped_images: BTreeSet::new(),
            knn_top1: None,
            profiler,
            profiled: (0, Duration::ZERO),
            group,
            trainer,
            plan,
        };
        let is_longer = run
            .plan
            .changes
            .iter()
            .any(|change| change.key == "schedule.epochs");
        match mem::replace(&mut run.plan.opened.beginning, Beginning::New) {
            Beginning::Resumed(resumed) => {
                run.totals.sums = resumed.state.epoch;
                run.skipped_images = resumed.state.skipped_images;
                run.knn_top1 = resumed.state.knn_top1;
                run.nonfinite.skipped = resumed.state.skipped_steps;
                run.nonfinite.checkpoint = Some(run.position.next_step);
                run.collapse.state = resumed.state.collapse;
                if is_longer {
                    run.record_run()?;
                }
            }
            Beginning::New | Beginning::Again => run.record_run()?,
        }
        Ok(run)
    }

    /// The first line of the metrics, or a later one where the run has become longer or shorter.
    fn record_run(&mut self) -> Result<()> {
        let parameters = self.trainer.encoder().parameters().scalar_count();
        let record = run_record(&self.plan, parameters);
        Ok(self.journal.write(&Record::Run(record))?)
    }

    /// Trains until the last epoch is over or the interrupt is requested. A checkpoint is on the disk in both cases.
    ///
    /// # Errors
    /// Those of the steps, and of files that cannot be written.
    pub fn train(&mut self, interrupt: &Interrupt, progress: &mut Progress) -> Result<()> {
        let started = (Instant::now(), self.position.next_step);
        while !self.position.is_finished() && !self.group.any(interrupt.is_requested())? {
            self.train_to_end_of_epoch(started, interrupt, progress)?;
        }
        progress.clear();
        self.checkpoint(match self.position.is_finished() {
            true => Reason::End,
            false => Reason::Stop,
        })?;
        if let Some(files) = &mut self.files {
            files.checkpoints.finish(&mut files.history)?;
        }
        // A rank that ends well has seen the checkpoint written; rank 0 goes on to evaluate alone.
        Ok(self.group.end()?)
    }

    /// The rest of the epoch, or of it what comes before a requested stop.
    fn train_to_end_of_epoch(
        &mut self,
        started: (Instant, u64),
        interrupt: &Interrupt,
        progress: &mut Progress,
    ) -> Result<()> {
        let Cursor { epoch, next_batch } = self.position.cursor();
        let mut batches = self.plan.loader.epoch(epoch, next_batch);
        // Only who writes them needs them.
        let own_keys = match &self.files {
            Some(_) => own_keys::of_epoch(self.plan.config(), &self.plan.loader, epoch),
            None => Vec::new(),
        };
        loop {
            let mut context = EpochContext {
                group: &self.group,
                interrupt,
                progress,
                journal: &mut self.journal,
                profiler: &self.profiler,
                run: &self.plan.config().run,
                chance_loss: chance(self.plan.config()),
                knn_top1: self.knn_top1,
                started,
                due: self.files.as_ref().map(|files| files.due),
                skipped: &mut self.skipped_images,
                nonfinite: &mut self.nonfinite,
                collapse: &mut self.collapse,
                own_keys: &own_keys,
            };
            let trainer = &mut self.trainer;
            let step = |batch: &_| trainer.step(batch);
            let (position, totals) = (&mut self.position, &mut self.totals);
            let pause = train_epoch(&mut batches, position, totals, &mut context, step)?;
            let mut standing = totals.standing(position, &context);
            self.collect_checkpoint();
            if let Pause::CheckpointIsDue(reason) = pause {
                self.checkpoint(reason)?;
                continue;
            }
            let (steps, time) = self.totals.time.steps_and_time();
            self.profiled.0 += steps;
            self.profiled.1 += time;
            if self.position.cursor().epoch > epoch {
                self.end_epoch(epoch)?;
                standing.knn_top1 = self.knn_top1;
                progress.end_epoch(&standing);
            }
            return Ok(());
        }
    }

    fn end_epoch(&mut self, epoch: u64) -> Result<()> {
        let totals = mem::take(&mut self.totals);
        self.journal.write(&Record::Epoch(EpochRecord {
            epoch,
            step: self.position.next_step,
            loss: totals.loss(),
            contrast_top1: totals.contrast_top1(),
            gradient_scale: totals.gradient_scale(),
            guaranteed_bound: totals.guaranteed_bound(),
            skipped_images: self.skipped_images.len(),
            timing: totals.timing(),
        }))?;
        self.measure_knn(epoch)?;
        let step = self.position.next_step;
        let due = self.files.as_ref().map(|files| files.due);
        match due.and_then(|due| due.after_epoch(epoch + 1, step, Instant::now())) {
            Some(reason) => self.checkpoint(reason),
            None => Ok(()),
        }
    }

    /// kNN on the images in memory, if it is due.
    fn measure_knn(&mut self, epoch: u64) -> Result<()> {
        let Some(knn) = self
            .plan
            .online_knn
            .as_ref()
            .filter(|knn| knn.is_due(epoch + 1))
        else {
            return Ok(());
        };
        let found = knn.measure(self.trainer.encoder())?;
        self.knn_top1 = Some(found.knn_top1);
        Ok(self.journal.write(&Record::Knn(KnnRecord {
            epoch,
            step: self.position.next_step,
            knn_top1: found.knn_top1,
            train_images: found.train_images,
            test_images: found.test_images,
        }))?)
    }

    /// Takes a checkpoint of this moment, unless there is one already.
    fn checkpoint(&mut self, reason: Reason) -> Result<()> {
        let step = self.position.next_step;
        let Some(files) = &mut self.files else {
            return Ok(());
        };
        let waits = reason == Reason::Minutes && files.checkpoints.is_busy();
        if files.checkpoints.has(step) || waits {
            return Ok(());
        }
        let begun = Instant::now();
        let span = self.profiler.span(|| Work::new("checkpoint", Phase::Other));
        if reason.is_of_the_run() {
            let path = files.folder.checkpoint(step);
            let file = path.file_name().unwrap_or_default();
            let file = file.to_string_lossy().into_owned();
            self.journal
                .write(&Record::Checkpoint(CheckpointRecord { step, file }))?;
        }
        let before = self.journal.handles().context("the metrics file")?;
        let state = LoopState {
            preset: self.plan.resolved.preset.to_owned(),
            images: self.plan.images,
            ranks: self.plan.ranks,
            epoch: self.totals.sums,
            skipped_images: self.skipped_images.clone(),
            knn_top1: self.knn_top1,
            journal: self.journal.length(),
            skipped_steps: self.nonfinite.skipped,
            collapse: self.collapse.state.clone(),
        };
        let (trainer, epoch) = (&self.trainer, self.position.cursor().epoch);
        let copy = || {
            with_state(
                trainer.to_checkpoint(epoch, COMMIT)?.ensure_finite()?,
                &state,
            )
        };
        let taken = (step, reason);
        (files.checkpoints).take(taken, before, copy, &mut files.history)?;
        files.due.taken(Instant::now());
        self.nonfinite.checkpoint = Some(step);
        drop(span);
        self.profiled.1 += begun.elapsed();
        Ok(())
    }

    /// Notes the checkpoint that has been written meanwhile.
    fn collect_checkpoint(&mut self) {
        if let Some(files) = &mut self.files {
            files.checkpoints.collect(&mut files.history);
        }
    }

    /// Where the run stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The run folder; that of rank 0.
    pub fn folder(&self) -> Option<&RunFolder> {
        self.files.as_ref().map(|files| &files.folder)
    }

    /// Writes where the time of training went, if the profiler was on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_profile(&self) -> Result<Option<Report>> {
        let (steps, time) = self.profiled;
        match (self.profiler.report(steps, time), self.folder()) {
            (Some(report), Some(folder)) => {
                folder.write_profile(&report)?;
                Ok(Some(report))
            }
            _ => Ok(None),
        }
    }

    /// Measures the encoder if training is over and that is wanted, and gives the table with its title.
    ///
    /// # Errors
    /// Those of the evaluations, and of files that cannot be written.
    pub fn measure(&mut self, progress: &mut Progress) -> Result<Option<String>> {
        let (config, encoder) = (self.plan.config(), self.trainer.encoder());
        let Some(files) = self.files.as_ref().filter(|_| self.position.is_finished()) else {
            return Ok(None);
        };
        let Some(images) = (self.plan.evaluation.as_ref().ok()).filter(|_| config.run.final_table)
        else {
            return Ok(None);
        };
        let comparison = final_table::measure(config, encoder, images, progress)?;
        let table = comparison.table();
        files.folder.write_summary(&table)?;
        files.folder.write_evaluation(&comparison)?;
        let data = self.plan.loader.dataset().name();
        let preset = self.plan.resolved.preset;
        Ok(Some(format!("\n{preset}: {data}\n\n{table}\n\n")))
    }

    /// Writes the last record, when everything else of the run has been written, and gives the folder back.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn end(mut self) -> Result<()> {
        let (step, finished) = (self.position.next_step, self.position.is_finished());
        self.journal
            .write(&Record::End(EndRecord { step, finished }))?;
        if let Some(files) = &mut self.files {
            files.history.note(match finished {
                true => Event::End { step },
                false => Event::Stop { step },
            });
        }
        Ok(())
    }
}

/// The state of the loop beside that of the trainer.
fn with_state(mut checkpoint: Checkpoint, state: &LoopState) -> Result<Checkpoint> {
    checkpoint.metadata.progress = serde_json::to_value(state).context("the loop's state")?;
    Ok(checkpoint)
}

fn collapse_alarm(config: &TrainConfig) -> CollapseAlarm {
    let batch = config.data.loader.batch_size;
    CollapseAlarm::new(
        config.run.collapse,
        config.method.negatives_per_query(batch),
    )
}
