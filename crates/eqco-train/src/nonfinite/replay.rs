//! Doing a step again that was not finite, from the checkpoint before it, and looking for what went wrong first.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};
use eqco_data::loader::Batch;
use eqco_models::checkpoint::{self, Checkpoint};
use eqco_models::profile::Profiler;
use eqco_models::total_norm;

use super::{Dump, DumpError, Exact};
use crate::epoch::Position;
use crate::loop_state::ImagesSeen;
use crate::metrics::COMMIT;
use crate::plan::{training_images, two_view_loader};
use crate::run_folder::RunFolder;
use crate::step::Trainer;

/// A step to do again.
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    /// What was written of it.
    pub dump: Dump,
    /// Where to begin, if not at the initial weights.
    pub checkpoint: Option<PathBuf>,
    passed_over: Option<String>,
}

/// What doing it again has shown.
#[derive(Clone, Debug)]
pub struct ReplayReport {
    /// The step.
    pub step: u64,
    /// Its loss.
    pub loss: Exact,
    /// The norm of all gradients.
    pub gradient_norm: Exact,
    /// Parts of the encoder: the norm of the gradient, and of the parameters before the step.
    pub groups: Vec<(String, Exact, Exact)>,
    /// The first tensor with a value that is not finite: in the state before the step, then in the order of the step.
    pub first_nonfinite: Option<String>,
    /// What is other than in the dump.
    pub differences: Vec<String>,
}

impl Replay {
    /// Reads the dump at `path`, and finds the checkpoint that it names, or, where that is gone, the newest before it.
    ///
    /// # Errors
    /// [`DumpError`].
    pub fn of(path: &Path) -> Result<Self> {
        let dump = Dump::read(path)?;
        if dump.ranks > 1 {
            let (path, ranks) = (path.to_owned(), dump.ranks);
            return Err(DumpError::Ranks { path, ranks }.into());
        }
        // A file is not believed to hold what a run could have had.
        dump.config.validate()?;
        let root = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let folder = RunFolder::at(root);
        // Whatever the file says, nothing outside of the run folder's checkpoints is opened.
        let there = Dump::checkpoint_before(&folder, dump.step);
        let passed_over = match (&dump.checkpoint, &there) {
            (Some(named), there) if Some(named) != there.as_ref() => Some(format!(
                "{named} is not the newest one before the step any more; beginning {}",
                there.as_deref().unwrap_or("at the initial weights")
            )),
            _ => None,
        };
        Ok(Self {
            path: path.to_owned(),
            checkpoint: there.map(|name| folder.path().join(name)),
            dump,
            passed_over,
        })
    }

    /// Does every step from the checkpoint on up to the one of the dump, and looks at that one instead of taking it.
    /// `say` is told how it goes.
    ///
    /// # Errors
    /// When data or checkpoint cannot be read, have changed, or a step before is not finite already.
    pub fn run(&self, say: &mut dyn FnMut(&str)) -> Result<ReplayReport> {
        let config = &self.dump.config;
        let train = training_images(config)?;
        let loader = two_view_loader(config, Arc::clone(&train), self.dump.threads)?;
        let found = ImagesSeen::of(&*train, loader.batches_per_epoch());
        self.check_images(found)?;
        let mut trainer =
            Trainer::with_profiler(config, loader.batches_per_epoch(), &Profiler::off())?;
        let begun = self.begin(&mut trainer, say)?;

        let mut position = Position {
            next_step: begun,
            steps_per_epoch: loader.batches_per_epoch(),
            epochs: config.schedule.epochs,
        };
        loop {
            let cursor = position.cursor();
            for batch in loader.epoch(cursor.epoch, cursor.next_batch) {
                let batch = batch?;
                if position.next_step == self.dump.step {
                    return self.look(&mut trainer, &batch);
                }
                take(&mut trainer, &batch, say)?;
                position.next_step += 1;
            }
            ensure!(
                !position.is_finished(),
                "{}: step {} is not one of this run, which has {}",
                self.path.display(),
                self.dump.step,
                position.total_steps()
            );
        }
    }

    /// Takes up the checkpoint; gives its step.
    fn begin(&self, trainer: &mut Trainer, say: &mut dyn FnMut(&str)) -> Result<u64> {
        if let Some(passed_over) = &self.passed_over {
            say(&format!("note     {passed_over}"));
        }
        let Some(path) = &self.checkpoint else {
            say("from     the initial weights: there is no checkpoint before the step");
            return Ok(0);
        };
        let checkpoint = checkpoint::load(path)?;
        trainer
            .restore(&checkpoint)
            .with_context(|| format!("the state in {}", path.display()))?;
        let step = checkpoint.metadata.step;
        say(&format!(
            "from     {}, {} steps before",
            path.display(),
            self.dump.step - step
        ));
        Ok(step)
    }

    fn check_images(&self, found: ImagesSeen) -> Result<(), DumpError> {
        if found == self.dump.images {
            return Ok(());
        }
        let words = |images: ImagesSeen| {
            format!(
                "{} images in {} steps an epoch with labels of checksum {:08x}",
                images.count, images.steps_per_epoch, images.labels
            )
        };
        Err(DumpError::Images {
            path: self.path.clone(),
            expected: words(self.dump.images),
            found: words(found),
        })
    }

    /// The step itself, without its update.
    fn look(&self, trainer: &mut Trainer, batch: &Batch) -> Result<ReplayReport> {
        let state = trainer.to_checkpoint(0, COMMIT)?;
        let seen = trainer.look(batch)?;
        let (norms, statistics) = (seen.gradient_norms, seen.statistics);
        let parameters = trainer.encoder().parameters().parameters();
        let mut groups: BTreeMap<(usize, String), [f64; 2]> = BTreeMap::new();
        for (parameter, norm) in parameters.iter().zip(&norms) {
            let group = group_of(parameter.name());
            let place = groups.keys().find(|(_, name)| *name == group);
            let key = place.cloned().unwrap_or((groups.len(), group));
            // In f32, squares of weights that an update has thrown far out would be infinite.
            let value = parameter.value().to_dtype(DType::F64)?;
            let value = value.sqr()?.sum_all()?.to_scalar::<f64>()?;
            let sums = groups.entry(key).or_default();
            sums[0] += norm * norm;
            sums[1] += value;
        }
        let groups = groups.into_iter();
        let first = first_nonfinite(&state, &seen.embeddings, statistics.loss)?;
        let gradient = parameters
            .iter()
            .zip(&norms)
            .rfind(|(_, norm)| !norm.is_finite());
        let gradient = gradient.map(|(parameter, _)| format!("gradient of {}", parameter.name()));
        let mut report = ReplayReport {
            step: self.dump.step,
            loss: statistics.loss.into(),
            gradient_norm: total_norm(&norms).into(),
            groups: groups
                .map(|((_, name), [gradient, value])| {
                    (name, gradient.sqrt().into(), value.sqrt().into())
                })
                .collect(),
            first_nonfinite: first.or(gradient),
            differences: Vec::new(),
        };
        report.differences = self.differences(&report, &batch.indices);
        Ok(report)
    }

    fn differences(&self, report: &ReplayReport, indices: &[u32]) -> Vec<String> {
        let mut differences = Vec::new();
        let dump = &self.dump;
        if indices != dump.indices {
            differences.push("the images of the batch are others".to_owned());
        }
        if report.loss != dump.loss {
            differences.push(format!(
                "loss: expected {}, found {}",
                dump.loss, report.loss
            ));
        }
        if let Some(norm) = dump
            .gradient_norm
            .filter(|norm| *norm != report.gradient_norm)
        {
            let found = report.gradient_norm;
            differences.push(format!(
                "norm of the gradient: expected {norm}, found {found}"
            ));
        }
        differences
    }
}

/// A step on the way. One that the run has skipped is skipped again.
fn take(trainer: &mut Trainer, batch: &Batch, say: &mut dyn FnMut(&str)) -> Result<()> {
    let report = trainer.step(batch)?;
    let step = report.step - 1;
    match &report.skipped {
        Some(found) => say(&format!("step     {step}: skipped again: {found}")),
        None => {
            let loss = report.statistics.wait()?.loss;
            say(&format!("step     {step}: loss {loss}"));
        }
    }
    Ok(())
}

/// The part of the encoder that a parameter belongs to: a stage, the first layers, the head.
fn group_of(name: &str) -> String {
    let mut parts = name.split('.');
    match (parts.next(), parts.next()) {
        (Some("backbone"), Some(part)) => format!("backbone.{part}"),
        (Some(part), _) => part.to_owned(),
        (None, _) => String::new(),
    }
}

/// The first tensor that is not finite before the backward pass.
fn first_nonfinite(
    state: &Checkpoint,
    embeddings: &[Tensor; 2],
    loss: f64,
) -> Result<Option<String>> {
    if let Some(name) = state.first_nonfinite()? {
        return Ok(Some(format!("{name}, before the step")));
    }
    for (name, tensor) in ["queries", "keys"].iter().zip(embeddings) {
        if !checkpoint::is_finite(tensor)? {
            return Ok(Some(format!("embeddings of the {name}")));
        }
    }
    Ok((!loss.is_finite()).then(|| "loss".to_owned()))
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            step,
            loss,
            gradient_norm,
            ..
        } = self;
        writeln!(
            f,
            "step {step}: loss {loss}, norm of the gradient {gradient_norm}\n"
        )?;
        writeln!(f, "{:<24} {:>14} {:>14}", "", "gradient", "parameters")?;
        for (name, gradient, value) in &self.groups {
            writeln!(f, "{name:<24} {:>14.6e} {:>14.6e}", gradient.0, value.0)?;
        }
        match &self.first_nonfinite {
            Some(name) => writeln!(f, "\nfirst tensor that is not finite: {name}")?,
            None => writeln!(f, "\nevery tensor is finite")?,
        }
        match self.differences.as_slice() {
            [] => writeln!(f, "the same as in the dump, to the bit"),
            others => others
                .iter()
                .try_for_each(|other| writeln!(f, "other than in the dump: {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_grouped_by_stage() {
        let groups = [
            "backbone.conv1.weight",
            "backbone.layer3.1.bn2.bias",
            "projection_head.0.weight",
            "scale",
        ]
        .map(group_of);
        assert_eq!(
            groups,
            [
                "backbone.conv1",
                "backbone.layer3",
                "projection_head",
                "scale"
            ]
        );
    }
}
