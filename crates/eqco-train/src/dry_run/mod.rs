//! `--dry-run`: everything that a run does, once and in small, so that what is wrong shows before hours have gone into it.

mod memory;

use std::fs;
use std::path::PathBuf;
use std::process;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use candle_core::DType;
use eqco_data::Cursor;
use eqco_eval::represent;
use eqco_models::checkpoint::{self, Checkpoint};

use crate::machine::{Machine, bytes_in_words, free_disk_bytes};
use crate::metrics::COMMIT;
use crate::plan::Plan;
use crate::progress::{Progress, clock};
use crate::step::Trainer;

pub use memory::Memory;

/// A second step is taken, for its time, if the first has not taken longer.
const QUICK: Duration = Duration::from_secs(15);
/// Images of each part that go through evaluation.
const EVALUATED: usize = 16;

/// Takes a step or two, writes a checkpoint to a temporary file and reads it back, passes a batch through the evaluation, and
/// tells what memory that took and what time the whole run will. Nothing is left behind.
///
/// # Errors
/// Those that the run would end with.
pub fn walk(plan: &Plan, mut trainer: Trainer, progress: &Progress) -> Result<()> {
    let step = steps(plan, &mut trainer)?;
    let memory = Memory::of(&trainer);
    if !trainer.group().is_first() {
        return Ok(());
    }
    progress.say(&format!("memory   {memory}"));
    if let Some(problem) = memory.shortage(Machine::detect().memory_bytes) {
        progress.say(&format!("WARNING  {problem}"));
    }
    let kept = checkpoint(plan, &trainer, progress)?;
    let image = evaluation(plan, &trainer, progress)?;
    progress.say(&format!("time     {}", time(plan, step, kept, image)));
    progress.say(
        "dry run: a step has been taken, a checkpoint written, read back and removed; nothing has been left in the run folder",
    );
    Ok(())
}

/// The time of a step, the first one of which allocates.
fn steps(plan: &Plan, trainer: &mut Trainer) -> Result<Duration> {
    let Cursor { epoch, next_batch } = plan.position.cursor();
    let mut batches = plan.loader.epoch(epoch, next_batch);
    let mut took = Duration::ZERO;
    for number in 0..2 {
        let begun = Instant::now();
        let Some(batch) = batches.next().transpose()? else {
            break;
        };
        let report = trainer.step(&batch)?;
        if let Some(found) = report.skipped {
            return Err(found.into());
        }
        // Until it is known, a GPU may not have begun.
        report.statistics.wait()?;
        took = begun.elapsed();
        if trainer.group().any(number == 0 && took > QUICK)? {
            break;
        }
    }
    Ok(took)
}

/// The time that a checkpoint takes.
fn checkpoint(plan: &Plan, trainer: &Trainer, progress: &Progress) -> Result<Duration> {
    let begun = Instant::now();
    let written = trainer.to_checkpoint(0, COMMIT)?.ensure_finite()?;
    let file = Temporary::new();
    checkpoint::save(&file.0, &written)?;
    let bytes = fs::metadata(&file.0).map_or(0, |about| about.len());
    let took = begun.elapsed();
    let read = checkpoint::load(&file.0)?;
    same(&written, &read).context("a checkpoint that has been written and read back")?;

    let keeps = plan.config().run.keep_last_checkpoints;
    let disk = plan.folder.ancestors().find(|folder| folder.is_dir());
    let free = disk.and_then(free_disk_bytes);
    let free = free.map_or(String::new(), |free| {
        format!("; {} free where the run goes", bytes_in_words(free))
    });
    let kept = match keeps {
        0 => "all stay".to_owned(),
        keeps => format!("the last {keeps} stay"),
    };
    progress.say(&format!(
        "checkpoint {} in {:.2} s, {kept}{free}",
        bytes_in_words(bytes),
        took.as_secs_f64()
    ));
    Ok(took)
}

/// Fails unless two checkpoints hold the same.
fn same(written: &Checkpoint, read: &Checkpoint) -> Result<()> {
    ensure!(
        written.tensors.len() == read.tensors.len(),
        "expected {} tensors, found {}",
        written.tensors.len(),
        read.tensors.len()
    );
    for (name, tensor) in &written.tensors {
        let found = read.tensors.iter().find(|(other, _)| other == name);
        let (_, found) = found.with_context(|| format!("expected tensor {name}, found none"))?;
        ensure!(
            found.dims() == tensor.dims() && found.dtype() == tensor.dtype(),
            "tensor {name}: expected {:?}, found {:?}",
            tensor.shape(),
            found.shape()
        );
        let differs = found.ne(tensor)?.to_dtype(DType::U32)?.sum_all()?;
        let differs = differs.to_scalar::<u32>()?;
        ensure!(
            differs == 0,
            "tensor {name}: other values than were written"
        );
    }
    Ok(())
}

/// The time that an image takes in the evaluation, where there is one.
fn evaluation(plan: &Plan, trainer: &Trainer, progress: &Progress) -> Result<Option<Duration>> {
    let Ok(images) = &plan.evaluation else {
        return Ok(None);
    };
    let few = images.in_memory(EVALUATED, EVALUATED)?;
    let begun = Instant::now();
    represent(trainer.encoder(), "dry run", &few, &mut |_| {})?;
    let took = begun.elapsed() / few.count().max(1) as u32;
    let dim = trainer.encoder().representation_dim();
    progress.say(&format!(
        "evaluated {} images, {dim} finite numbers each",
        few.count()
    ));
    Ok(Some(took))
}

fn time(plan: &Plan, step: Duration, kept: Duration, image: Option<Duration>) -> String {
    let config = plan.config();
    let position = plan.position;
    let steps = position.total_steps() - position.next_step;
    let training = step.mul_f64(steps as f64);
    let epochs_between = config.run.checkpoint_every_epochs;
    let checkpoints = position.epochs.div_ceil(epochs_between);
    let mut text = format!(
        "{:.3} s a step, {} for all {steps}; {} for {checkpoints} checkpoints, most of it beside training",
        step.as_secs_f64(),
        clock(training),
        clock(kept.mul_f64(checkpoints as f64)),
    );
    if let (Some(image), Ok(images)) = (image, &plan.evaluation) {
        let encoders = 1 + u32::from(config.run.baselines);
        let pass = image.mul_f64(images.count() as f64) * encoders;
        text += &format!(
            "; {} to represent {} images at the end, before kNN and linear probe",
            clock(pass),
            images.count()
        );
    }
    text
}

/// A file beside no run, gone when this is.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        let name = format!("eqco-dry-run-{}.safetensors", process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = fs::remove_file(&self.0);
    }
}
