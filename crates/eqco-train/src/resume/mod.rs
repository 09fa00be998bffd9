//! Going on with a run: which one, from which checkpoint, and with what changed.

mod changes;
mod error;
mod opening;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use candle_core::Tensor;
use eqco_models::checkpoint::Checkpoint;
use serde::Deserialize;

use crate::checkpoints::{self, Newest, PassedOver};
use crate::cli::PretrainArgs;
use crate::config::{Preset, Resolved, TrainConfig};
use crate::loop_state::{ImagesSeen, LoopState};
use crate::run_folder::RunFolder;

pub use changes::{Change, changes};
pub use error::ResumeError;
pub use opening::{Beginning, Opened};

/// What `--resume` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The run in the folder of `--out` if there is one, or else a new one there: the same command for the first time and
    /// for every time after that.
    Auto,
    /// The run in this folder.
    Run(PathBuf),
}

impl FromStr for Resume {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            path => Self::Run(path.into()),
        })
    }
}

impl Resume {
    /// The folder that the run is in, or will be.
    ///
    /// # Errors
    /// [`ResumeError::NoFolder`] and [`ResumeError::OtherFolder`].
    pub fn folder(&self, out: Option<&Path>) -> Result<PathBuf, ResumeError> {
        match (self, out) {
            (Self::Auto, None) => Err(ResumeError::NoFolder),
            (Self::Auto, Some(out)) => Ok(out.to_owned()),
            (Self::Run(run), Some(out)) if run != out => Err(ResumeError::OtherFolder {
                run: run.clone(),
                out: out.to_owned(),
            }),
            (Self::Run(run), _) => Ok(run.clone()),
        }
    }
}

/// A checkpoint to go on from.
#[derive(Debug)]
pub struct Resumed {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Its file.
    pub path: PathBuf,
    /// Newer files that could not be read.
    pub passed_over: Vec<PassedOver>,
    /// The loop around its step.
    pub state: LoopState,
    /// The configuration that it was written with.
    pub config: TrainConfig,
}

impl Resumed {
    fn new(newest: Newest) -> Result<Self, ResumeError> {
        let Newest {
            checkpoint,
            path,
            passed_over,
        } = newest;
        let no_state = |found: String| ResumeError::NoState {
            path: path.clone(),
            found,
        };
        let state = LoopState::of(&checkpoint).map_err(no_state)?;
        let config = TrainConfig::deserialize(&checkpoint.metadata.training)
            .map_err(|error| no_state(format!("settings of another version: {error}")))?
            .completed();
        Ok(Self {
            checkpoint,
            path,
            passed_over,
            state,
            config,
        })
    }

    /// The settings to go on with: those of the run with what the flags change, unless a preset or a file is named.
    ///
    /// # Errors
    /// Those of the configuration.
    pub fn resolve(&self, arguments: &PretrainArgs) -> Result<Resolved> {
        let config = &arguments.config;
        if config.preset.is_some() || config.config.is_some() {
            return Ok(config.resolve()?);
        }
        let named = Preset::all()
            .iter()
            .find(|preset| preset.name == self.state.preset);
        let preset = named.map_or("another version's", |preset| preset.name);
        Ok(Resolved::over_stored(
            &self.config,
            preset,
            config.settings()?,
        )?)
    }

    /// Checks that the run goes on with the images it has begun with.
    ///
    /// # Errors
    /// [`ResumeError::Changed`].
    pub fn check_images(&self, now: ImagesSeen) -> Result<(), ResumeError> {
        let before = self.state.images;
        if before == now {
            return Ok(());
        }
        let words = |images: ImagesSeen| {
            format!(
                "{} with labels of checksum {:08x}",
                images.count, images.labels
            )
        };
        Err(ResumeError::Changed {
            key: "training images".to_owned(),
            before: words(before),
            now: words(now),
            hint: "give the images of the run to --data; those that were added or moved later make it another run",
        })
    }

    /// Checks that the run is not to be shorter than it is already.
    ///
    /// # Errors
    /// [`ResumeError::Changed`].
    pub fn check_length(&self, epochs: u64, total_steps: u64) -> Result<(), ResumeError> {
        let done = self.checkpoint.metadata.step;
        if total_steps >= done {
            return Ok(());
        }
        Err(ResumeError::Changed {
            key: "schedule.epochs".to_owned(),
            before: format!(
                "{}, of which {done} steps are done,",
                self.config.schedule.epochs
            ),
            now: format!("{epochs}, which are {total_steps} steps,"),
            hint: "give as many --epochs as are done, or more",
        })
    }

    /// Compares the names, element types and shapes of the checkpoint's tensors with those of the run's state.
    ///
    /// # Errors
    /// [`ResumeError::Tensor`] with the first difference.
    pub fn check_tensors(&self, state: &Checkpoint) -> Result<(), ResumeError> {
        let described = |checkpoint: &Checkpoint| -> BTreeMap<String, String> {
            let tensors = checkpoint.tensors.iter();
            let word = |tensor: &Tensor| {
                format!("{} of shape {:?}", tensor.dtype().as_str(), tensor.dims())
            };
            tensors
                .map(|(name, tensor)| (name.clone(), word(tensor)))
                .collect()
        };
        let (expected, found) = (described(state), described(&self.checkpoint));
        let mut names = expected.keys().chain(found.keys());
        let Some(tensor) = names.find(|name| expected.get(*name) != found.get(*name)) else {
            return Ok(());
        };
        let word = |of: Option<&String>| of.map_or("nothing", String::as_str).to_owned();
        Err(ResumeError::Tensor {
            path: self.path.clone(),
            tensor: tensor.clone(),
            expected: word(expected.get(tensor)),
            found: word(found.get(tensor)),
        })
    }

    /// Puts the files that could not be read out of the way, where they are kept, and removes what is half-written.
    pub fn clear_up(&self, folder: &RunFolder) {
        self.passed_over
            .iter()
            .for_each(|over| checkpoints::set_aside(&over.path));
        checkpoints::remove_partial(&folder.checkpoints());
    }

    /// What was taken and why, for people.
    pub fn explain(&self, changes: &[Change]) -> String {
        let step = self.checkpoint.metadata.step;
        let mut lines = vec![format!(
            "resumed  from {}, the newest checkpoint that is sound: step {step}",
            self.path.display()
        )];
        for over in &self.passed_over {
            lines.push(format!(
                "WARNING  a newer one cannot be used, and is kept with `.damaged` behind its name: {}",
                over.problem
            ));
        }
        lines.extend(changes.iter().map(|change| format!("changed  {change}")));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_a_word_and_everything_else_a_folder() {
        let parse = |text: &str| text.parse::<Resume>().unwrap();
        assert_eq!(parse("auto"), Resume::Auto);
        assert_eq!(parse("./auto"), Resume::Run("./auto".into()));
        let out = Some(Path::new("runs/a"));
        assert_eq!(parse("auto").folder(out).unwrap(), Path::new("runs/a"));
        assert_eq!(parse("runs/b").folder(None).unwrap(), Path::new("runs/b"));
        assert_eq!(parse("runs/a").folder(out).unwrap(), Path::new("runs/a"));
        assert!(matches!(
            parse("auto").folder(None),
            Err(ResumeError::NoFolder)
        ));
        let error = parse("runs/b").folder(out).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--resume runs/b: expected no --out, or the same one, found --out runs/a"
        );
    }
}
