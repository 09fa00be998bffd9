//! `eqco-train pretrain`: from a configuration to a trained encoder.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use eqco_core::chance_loss;
use eqco_data::Cursor;
use eqco_models::ProcessGroup;
use eqco_models::checkpoint;
use eqco_models::profile::Profiler;
use tracing_subscriber::EnvFilter;

use super::next_commands;
use crate::cli::PretrainArgs;
use crate::config::TrainConfig;
use crate::epoch::{EpochContext, EpochTotals, Position, train_epoch};
use crate::final_table;
use crate::interrupt::{EXIT_STATUS, Interrupt};
use crate::journal::Journal;
use crate::machine::Machine;
use crate::metrics::{
    COMMIT, CheckpointRecord, EndRecord, EpochRecord, KnnRecord, Record, RunRecord,
};
use crate::plan::{Plan, named};
use crate::progress::Progress;
use crate::ranks::{Ranks, check_agreement};
use crate::run_folder::RunFolder;
use crate::step::Trainer;

pub(super) fn run(arguments: &PretrainArgs) -> Result<ExitCode> {
    let ranks = Ranks::from_environment()?;
    let mut progress = if ranks.is_first() {
        Progress::on_stderr()
    } else {
        Progress::silent()
    };
    start_log(&progress);
    let group = match &ranks.rendezvous {
        None => ProcessGroup::alone(),
        Some(rendezvous) => ProcessGroup::join(rendezvous)?,
    };
    let profiler = if arguments.profile {
        Profiler::on()
    } else {
        Profiler::off()
    };
    // Whoever fails says so, for the others would wait.
    let (plan, trainer) = prepare(arguments, &ranks, &group, &profiler)
        .inspect_err(|error| group.leave(&format!("{error:#}")))?;
    let trainer = trainer.in_group(group)?;
    let group = Arc::clone(trainer.group());
    pretrain(arguments, plan, trainer, profiler, &mut progress)
        .inspect_err(|error| group.leave(&format!("{error:#}")))
}

/// Everything up to the first step, the same on all ranks.
fn prepare(
    arguments: &PretrainArgs,
    ranks: &Ranks,
    group: &ProcessGroup,
    profiler: &Profiler,
) -> Result<(Plan, Trainer)> {
    let plan = Plan::new(arguments, ranks)?;
    let (settings, images) = (plan.config().to_toml(), plan.loader.dataset().len());
    check_agreement(group, COMMIT, &settings, images)?;
    start_threads(plan.threads)?;
    let config = TrainConfig {
        device: ranks.device(plan.config().device),
        ..plan.config().clone()
    };
    let trainer = Trainer::with_profiler(&config, plan.position.steps_per_epoch, profiler)?;
    Ok((plan, trainer))
}

fn pretrain(
    arguments: &PretrainArgs,
    plan: Plan,
    trainer: Trainer,
    profiler: Profiler,
    progress: &mut Progress,
) -> Result<ExitCode> {
    if trainer.group().is_first() {
        progress.say(&plan.describe(trainer.encoder()));
    }
    if arguments.dry_run {
        return dry_run(&plan, progress);
    }
    let mut run = Run::start(plan, trainer, profiler)?;
    let interrupt = Interrupt::listen().context("Ctrl-C cannot be listened to")?;
    run.train(&interrupt, progress)?;
    // Everything that took long is on the disk: from here on the first Ctrl-C ends the process.
    interrupt.request();
    run.finish(progress)
}

/// Log lines go to stderr beside the bar; `RUST_LOG` chooses which.
pub(super) fn start_log(progress: &Progress) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(progress.log_writer());
    // A log that somebody else in this process has set up stays.
    let _ = log.without_time().with_target(false).try_init();
}

/// The one pool that all kernels share.
fn start_threads(threads: usize) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
    pool.with_context(|| format!("{threads} threads cannot be started"))
}

/// Reads the first batch, so that unreadable data shows now, and stops there.
fn dry_run(plan: &Plan, progress: &Progress) -> Result<ExitCode> {
    let Cursor { epoch, next_batch } = plan.position.cursor();
    plan.loader.epoch(epoch, next_batch).next().transpose()?;
    progress.say("dry run: the first batch can be read; nothing has been trained or written");
    Ok(ExitCode::SUCCESS)
}

/// A run with its folder.
struct Run {
    plan: Plan,
    trainer: Trainer,
    group: Arc<ProcessGroup>,
    position: Position,
    /// That of rank 0; the others write nothing.
    folder: Option<RunFolder>,
    journal: Journal,
    knn_top1: Option<f64>,
    last_checkpoint: Option<PathBuf>,
    profiler: Profiler,
    /// Steps done by this process, and their time with all waiting.
    profiled: (u64, Duration),
}

impl Run {
    fn start(plan: Plan, trainer: Trainer, profiler: Profiler) -> Result<Self> {
        let group = Arc::clone(trainer.group());
        let (folder, mut journal) = if group.is_first() {
            let folder = RunFolder::create(&plan.folder)?;
            folder.write_config(&plan.config().to_toml())?;
            let journal = Journal::open(&folder)?;
            (Some(folder), journal)
        } else {
            (None, Journal::none())
        };
        let parameters = trainer.encoder().parameters().scalar_count();
        journal.write(&Record::Run(run_record(&plan, parameters)))?;
        let position = plan.position;
        Ok(Self {
            plan,
            trainer,
            group,
            position,
            folder,
            journal,
            knn_top1: None,
            last_checkpoint: None,
            profiler,
            profiled: (0, Duration::ZERO),
        })
    }

    /// Trains until the last epoch is over or the interrupt is requested. A checkpoint is written in both cases.
    fn train(&mut self, interrupt: &Interrupt, progress: &mut Progress) -> Result<()> {
        let started = (Instant::now(), self.position.next_step);
        while !self.position.is_finished() && !self.group.any(interrupt.is_requested())? {
            let Cursor { epoch, next_batch } = self.position.cursor();
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
            };
            let batches = self.plan.loader.epoch(epoch, next_batch);
            let trainer = &mut self.trainer;
            let step = |batch: &_| trainer.step(batch);
            let totals = train_epoch(batches, &mut self.position, &mut context, step)?;
            let (steps, time) = totals.steps_and_time();
            self.profiled.0 += steps;
            self.profiled.1 += time;
            if self.position.cursor().epoch > epoch {
                let mut standing = totals.standing(&self.position, &context);
                self.end_epoch(epoch, &totals)?;
                standing.knn_top1 = self.knn_top1;
                progress.end_epoch(&standing);
            }
        }
        progress.clear();
        self.checkpoint()?;
        // A rank that ends well has seen the checkpoint written; rank 0 goes on to evaluate alone.
        Ok(self.group.end()?)
    }

    fn end_epoch(&mut self, epoch: u64, totals: &EpochTotals) -> Result<()> {
        self.journal.write(&Record::Epoch(EpochRecord {
            epoch,
            step: self.position.next_step,
            loss: totals.loss(),
            contrast_top1: totals.contrast_top1(),
            gradient_scale: totals.gradient_scale(),
            guaranteed_bound: totals.guaranteed_bound(),
            skipped_images: self.plan.loader.skipped(),
            timing: totals.timing(),
        }))?;
        self.measure_knn(epoch)?;
        let is_due = (epoch + 1).is_multiple_of(self.plan.config().run.checkpoint_every_epochs);
        if is_due { self.checkpoint() } else { Ok(()) }
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

    /// Writes a checkpoint of this moment, unless there is one already.
    fn checkpoint(&mut self) -> Result<()> {
        let step = self.position.next_step;
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let path = folder.checkpoint(step);
        if self.last_checkpoint.as_ref() == Some(&path) {
            return Ok(());
        }
        let content = self
            .trainer
            .to_checkpoint(self.position.cursor().epoch, COMMIT)?;
        checkpoint::save(&path, &content)?;
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        self.journal
            .write(&Record::Checkpoint(CheckpointRecord { step, file }))?;
        self.last_checkpoint = Some(path);
        Ok(())
    }

    /// Measures the encoder if training is over, and says what to do next.
    fn finish(mut self, progress: &mut Progress) -> Result<ExitCode> {
        let is_finished = self.position.is_finished();
        let Some(folder) = self.folder.clone() else {
            let status = if is_finished { 0 } else { EXIT_STATUS as u8 };
            return Ok(ExitCode::from(status));
        };
        self.finish_profile(&folder)?;
        if !is_finished {
            self.write_end()?;
            let checkpoint = self.last_checkpoint.as_deref();
            progress.say(&next_commands::after_stop(
                &self.position,
                &folder,
                checkpoint,
            ));
            return Ok(ExitCode::from(EXIT_STATUS as u8));
        }
        if let Ok(images) = &self.plan.evaluation
            && self.plan.config().run.final_table
        {
            let encoder = self.trainer.encoder();
            let comparison = final_table::measure(self.plan.config(), encoder, images, progress)?;
            let table = comparison.table();
            folder.write_summary(&table)?;
            folder.write_evaluation(&comparison)?;
            super::print(&format!(
                "\n{}: {}\n\n{table}\n\n",
                self.plan.resolved.preset,
                self.data_name()
            ))?;
        }
        self.write_end()?;
        super::print(&next_commands::after_end(&folder))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Writes the last record, when everything else of the run has been written.
    fn write_end(&mut self) -> Result<()> {
        Ok(self.journal.write(&Record::End(EndRecord {
            step: self.position.next_step,
            finished: self.position.is_finished(),
        }))?)
    }

    /// Writes and shows where the time went, if that was asked for.
    fn finish_profile(&self, folder: &RunFolder) -> Result<()> {
        let (steps, time) = self.profiled;
        if let Some(report) = self.profiler.report(steps, time) {
            folder.write_profile(&report)?;
            super::print(&format!("\n{report}\n"))?;
        }
        Ok(())
    }

    fn data_name(&self) -> String {
        self.plan.loader.dataset().name().to_owned()
    }
}

fn run_record(plan: &Plan, parameters: usize) -> RunRecord {
    let config = plan.config();
    let dataset = plan.loader.dataset();
    RunRecord {
        version: env!("CARGO_PKG_VERSION"),
        commit: COMMIT,
        preset: plan.resolved.preset,
        seed: config.seed,
        data_set: dataset.name().to_owned(),
        train_images: dataset.len(),
        steps_per_epoch: plan.position.steps_per_epoch,
        steps: plan.position.total_steps(),
        parameters,
        negative_count: config
            .method
            .negatives_per_query(config.data.loader.batch_size),
        chance_loss: chance(config),
        device: named(&config.device),
        backend: named(&config.backend),
        precision: named(&config.precision),
        threads: plan.threads,
        ranks: plan.ranks,
        machine: Machine::detect(),
    }
}

/// The loss of a run while all similarities are equal.
fn chance(config: &TrainConfig) -> f64 {
    let negatives = config
        .method
        .negatives_per_query(config.data.loader.batch_size);
    chance_loss(config.loss.alpha, negatives)
}
