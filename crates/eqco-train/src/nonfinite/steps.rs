//! What a run does about its steps that are not finite: a dump each, a line in the metrics, a count, an end.

use std::sync::Arc;

use anyhow::{Result, bail};
use eqco_data::Dataset;

use super::{Dump, Nonfinite, OnNonfinite};
use crate::config::TrainConfig;
use crate::journal::Journal;
use crate::loop_state::ImagesSeen;
use crate::metrics::{NonfiniteRecord, Record};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::run_folder::RunFolder;

/// The error of a run that a step has ended.
#[derive(Debug, thiserror::Error)]
#[error("{found}")]
pub struct Stopped {
    found: Nonfinite,
    dump: Option<String>,
}

impl Stopped {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let dump = self.dump.as_ref()?;
        Some(format!(
            "`eqco-train replay {dump}` does this step again and shows what was the first to go wrong; `--set \
             run.on_nonfinite=skip` goes on without such steps"
        ))
    }
}

/// The steps of a run that were not finite.
pub struct NonfiniteSteps {
    /// So many have been skipped, over the whole run.
    pub skipped: u64,
    /// The step of the newest checkpoint that has been taken, which may be on its way to the disk.
    pub checkpoint: Option<u64>,
    most: u64,
    action: OnNonfinite,
    dumps: Option<Dumps>,
}

/// What a dump tells of every step alike.
struct Dumps {
    folder: RunFolder,
    config: TrainConfig,
    preset: String,
    dataset: Arc<dyn Dataset>,
    images: ImagesSeen,
    threads: usize,
    ranks: usize,
}

impl NonfiniteSteps {
    /// Those of `plan`, dumped to `folder`; to nowhere by a process that writes nothing.
    pub fn new(plan: &Plan, folder: Option<&RunFolder>) -> Self {
        let run = &plan.config().run;
        Self {
            skipped: 0,
            checkpoint: None,
            most: run.most_skipped_steps,
            action: run.on_nonfinite,
            dumps: folder.map(|folder| Dumps {
                folder: folder.clone(),
                config: plan.config().clone(),
                preset: plan.resolved.preset.to_owned(),
                dataset: Arc::clone(plan.loader.dataset()),
                images: plan.images,
                threads: plan.threads,
                ranks: plan.ranks,
            }),
        }
    }

    /// Those of a run that stops at the first and writes nothing.
    pub fn unwritten() -> Self {
        Self {
            skipped: 0,
            checkpoint: None,
            most: 0,
            action: OnNonfinite::Stop,
            dumps: None,
        }
    }

    /// Writes down a step on the images `indices` that ends the run, and gives the error.
    ///
    /// # Errors
    /// Always: the step's own, with the dump's name.
    pub fn stop<T>(&self, found: Nonfinite, indices: &[u32], journal: &mut Journal) -> Result<T> {
        let dump = self.write(&found, OnNonfinite::Stop, indices, journal);
        let dump = dump.unwrap_or_else(|problem| {
            tracing::error!("no dump of step {}: {problem:#}", found.step);
            None
        });
        Err(Stopped { found, dump }.into())
    }

    /// Writes down and counts a step on the images `indices` that has been skipped.
    ///
    /// # Errors
    /// When too many have been skipped, or the dump cannot be written.
    pub fn skip(
        &mut self,
        found: Nonfinite,
        indices: &[u32],
        (journal, progress): (&mut Journal, &Progress),
    ) -> Result<()> {
        self.skipped += 1;
        let dump = self.write(&found, self.action, indices, journal)?;
        let (skipped, most) = (self.skipped, self.most);
        if let Some(path) = &dump {
            progress.say(&format!(
                "WARNING  {found}; the step is skipped ({skipped} of at most {most} so far): see {path}"
            ));
        }
        if skipped > most {
            bail!(
                "{skipped} steps were not finite, and run.most_skipped_steps is {most}: {found}; going on from an older \
                 checkpoint with a lower --lr is what usually helps"
            );
        }
        Ok(())
    }

    /// Writes the dump and the line of the metrics.
    fn write(
        &self,
        found: &Nonfinite,
        action: OnNonfinite,
        indices: &[u32],
        journal: &mut Journal,
    ) -> Result<Option<String>> {
        let Some(dumps) = &self.dumps else {
            return Ok(None);
        };
        let dump = dumps.of(found, action, indices, self.checkpoint);
        let path = dump.write(&dumps.folder)?;
        let name = path.file_name().unwrap_or_default();
        journal.write(&Record::Nonfinite(NonfiniteRecord {
            step: found.step,
            epoch: dump.epoch,
            action,
            loss: dump.loss,
            gradient_norm: dump.gradient_norm,
            skipped_steps: self.skipped,
            dump: name.to_string_lossy().into_owned(),
        }))?;
        Ok(Some(path.display().to_string()))
    }
}

impl Dumps {
    fn of(
        &self,
        found: &Nonfinite,
        action: OnNonfinite,
        indices: &[u32],
        checkpoint: Option<u64>,
    ) -> Dump {
        let describe = |index: &u32| self.dataset.describe(*index as usize);
        let steps_per_epoch = self.images.steps_per_epoch.max(1);
        Dump {
            format: Dump::FORMAT,
            program: Dump::program(),
            action,
            step: found.step,
            epoch: found.step / steps_per_epoch,
            batch: found.step % steps_per_epoch,
            seed: self.config.seed,
            learning_rate: found.learning_rate,
            loss: found.statistics.loss.into(),
            gradient_norm: found.gradient_norm.map(Into::into),
            first_gradient: found.first_gradient.clone(),
            statistics: serde_json::to_value(found.statistics).unwrap_or_default(),
            checkpoint: checkpoint.and_then(|step| Dump::checkpoint_of(&self.folder, step)),
            preset: self.preset.clone(),
            threads: self.threads,
            ranks: self.ranks,
            data_set: self.dataset.name().to_owned(),
            images: self.images,
            indices: indices.to_vec(),
            files: indices.iter().map(describe).collect(),
            config: self.config.clone(),
        }
    }
}
