//! Finding the run to go on with, and settling with what settings it goes on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use eqco_models::ProcessGroup;
use eqco_models::checkpoint;

use super::{Change, Resume, ResumeError, Resumed, changes};
use crate::checkpoints::{Newest, newest_sound};
use crate::cli::PretrainArgs;
use crate::config::{Resolved, TrainConfig};
use crate::run_folder::{RunFolder, RunFolderError, RunLock};

/// How a run begins.
#[derive(Debug)]
pub enum Beginning {
    /// In a folder of its own.
    New,
    /// From the first step, in the folder of a run that was stopped before its first checkpoint.
    Again,
    /// From a checkpoint.
    Resumed(Box<Resumed>),
}

/// A folder to go on in, for as long as this process holds it.
#[derive(Debug)]
pub struct Opened {
    /// How the run begins.
    pub beginning: Beginning,
    /// The right to write there; none of other ranks than the first, and of a run that does not write.
    pub lock: Option<(RunLock, Option<String>)>,
}

impl Opened {
    /// A run that has nothing to do with an earlier one.
    pub fn new_run() -> Self {
        Self {
            beginning: Beginning::New,
            lock: None,
        }
    }

    /// The run that the command line asks for: its folder, if one is named, and its settings, with what they have otherwise
    /// than before.
    ///
    /// # Errors
    /// Those of [`Opened::find`] and of the configuration, and [`ResumeError::Changed`].
    pub fn of(
        arguments: &PretrainArgs,
        group: &ProcessGroup,
    ) -> Result<(Self, Option<PathBuf>, Resolved, Vec<Change>)> {
        let Some(resume) = &arguments.resume else {
            let resolved = arguments.config.resolve()?;
            return Ok((Self::new_run(), arguments.out.clone(), resolved, Vec::new()));
        };
        let folder = resume.folder(arguments.out.as_deref())?;
        let opened = Self::find(resume, &folder, group, arguments.dry_run)?;
        let (resolved, changed) = match &opened.beginning {
            Beginning::New => (arguments.config.resolve()?, Vec::new()),
            Beginning::Again => {
                let resolved = arguments.config.resolve()?;
                let before = stored_config(&RunFolder::at(&folder));
                let now = (&resolved.config, group.size());
                let changed = before.map(|before| changes((&before, now.1), now));
                let changed = changed.transpose()?.unwrap_or_default();
                (resolved, changed)
            }
            Beginning::Resumed(resumed) => {
                let resolved = resumed.resolve(arguments)?;
                let before = (&resumed.config, resumed.state.ranks);
                let changed = changes(before, (&resolved.config, group.size()))?;
                (resolved, changed)
            }
        };
        Ok((opened, Some(folder), resolved, changed))
    }

    /// Looks for the run that `resume` means in `folder`. The first rank chooses the checkpoint, for all must go on from the
    /// same one, and locks the folder unless it only `looks`.
    ///
    /// # Errors
    /// [`ResumeError`], and what is wrong with the files.
    pub fn find(resume: &Resume, folder: &Path, group: &ProcessGroup, looks: bool) -> Result<Self> {
        let folder = RunFolder::at(folder);
        let exists = match RunFolder::check_free(folder.path()) {
            Ok(()) => false,
            Err(error @ RunFolderError::NotAFolder { .. }) => return Err(error.into()),
            Err(_) => true,
        };
        let lock = (group.is_first() && exists && !looks)
            .then(|| RunLock::take(folder.path()))
            .transpose()?;
        let newest = match group.is_first() {
            true => newest_sound(&folder)?,
            false => None,
        };
        let chosen = newest
            .as_ref()
            .map(|newest| newest.checkpoint.metadata.step);
        let newest = match agreed(group, chosen)? {
            Some(step) if !group.is_first() => Some(Newest {
                checkpoint: checkpoint::load(&folder.checkpoint(step))?,
                path: folder.checkpoint(step),
                passed_over: Vec::new(),
            }),
            _ => newest,
        };
        let path = folder.path().to_owned();
        let beginning = match (newest, resume) {
            (Some(newest), _) => Beginning::Resumed(Box::new(Resumed::new(newest)?)),
            (None, Resume::Run(_)) if exists => {
                return Err(ResumeError::NoCheckpoint { path }.into());
            }
            (None, Resume::Run(_)) => return Err(ResumeError::NoRun { path }.into()),
            (None, Resume::Auto) if exists => Beginning::Again,
            (None, Resume::Auto) => Beginning::New,
        };
        Ok(Self { beginning, lock })
    }
}

/// The step that the first rank has chosen.
fn agreed(group: &ProcessGroup, chosen: Option<u64>) -> Result<Option<u64>> {
    // No run has 2^53 steps: f64 holds the number.
    let mine = chosen.map_or(-1.0, |step| step as f64);
    let first = group.numbers(&[mine])?[0][0];
    Ok((first >= 0.0).then_some(first as u64))
}

/// The settings of a run without a checkpoint; none if it was killed before it had written them.
fn stored_config(folder: &RunFolder) -> Option<TrainConfig> {
    let text = fs::read_to_string(folder.config()).ok()?;
    toml::from_str(&text).ok()
}
