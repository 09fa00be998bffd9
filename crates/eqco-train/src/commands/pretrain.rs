//! `eqco-train pretrain`: from a configuration to a trained encoder.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use eqco_models::ProcessGroup;
use eqco_models::profile::Profiler;
use tracing_subscriber::EnvFilter;

use super::next_commands;
use crate::cli::PretrainArgs;
use crate::dry_run;
use crate::interrupt::{EXIT_STATUS, Interrupt};
use crate::metrics::COMMIT;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::ranks::{Ranks, check_agreement};
use crate::run::Run;
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
    let plan = Plan::new(arguments, ranks, group)?;
    let (settings, images) = (plan.config().to_toml(), plan.loader.dataset().len());
    check_agreement(group, COMMIT, &settings, images)?;
    start_threads(plan.threads)?;
    let trainer = plan.trainer(ranks, profiler)?;
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
        dry_run::walk(&plan, trainer, progress)?;
        return Ok(ExitCode::SUCCESS);
    }
    let interrupt = Interrupt::listen().context("Ctrl-C cannot be listened to")?;
    let mut run = Run::start(plan, trainer, profiler, progress)?;
    run.train(&interrupt, progress)?;
    // Everything that took long is on the disk: from here on the first Ctrl-C ends the process.
    interrupt.request();
    finish(run, progress)
}

/// Measures the encoder if training is over, and says what to do next.
fn finish(mut run: Run, progress: &mut Progress) -> Result<ExitCode> {
    let position = run.position();
    let status = match position.is_finished() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_STATUS as u8),
    };
    let Some(folder) = run.folder().cloned() else {
        return Ok(status);
    };
    if let Some(report) = run.write_profile()? {
        super::print(&format!("\n{report}\n"))?;
    }
    if let Some(table) = run.measure(progress)? {
        super::print(&table)?;
    }
    run.end()?;
    if position.is_finished() {
        super::print(&next_commands::after_end(&folder))?;
    } else {
        progress.say(&next_commands::after_stop(&position, &folder));
    }
    Ok(status)
}

/// Log lines go to stderr beside the bar; `RUST_LOG` chooses which.
pub(super) fn start_log(progress: &Progress) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(console::colors_enabled_stderr())
        .with_writer(progress.log_writer());
    // A log that somebody else in this process has set up stays.
    let _ = log.without_time().with_target(false).try_init();
}

/// The one pool that all kernels share.
pub(super) fn start_threads(threads: usize) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
    pool.with_context(|| format!("{threads} threads cannot be started"))
}
