//! The checkpoint to go on from: the newest that is sound.

use std::fs;
use std::path::{Path, PathBuf};

use eqco_models::checkpoint::{self, Checkpoint};
use eqco_models::error::ModelError;

use crate::resume::ResumeError;
use crate::run_folder::RunFolder;

/// What is put behind the name of a file that cannot be read.
const DAMAGED: &str = "damaged";

/// A checkpoint that can be read, with what is newer and cannot.
#[derive(Debug)]
pub struct Newest {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Its file.
    pub path: PathBuf,
    /// Newer files, the newest first.
    pub passed_over: Vec<PassedOver>,
}

/// A file that no checkpoint can be read from.
#[derive(Debug)]
pub struct PassedOver {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// The newest sound checkpoint of the run `folder`; `None` if there is no file at all.
///
/// # Errors
/// [`ResumeError::NoneSound`] when there are files and none can be read: a run is not begun anew over what may be saved yet.
/// [`ModelError::CheckpointVersion`] for one of a newer release, which is sound.
pub fn newest_sound(folder: &RunFolder) -> anyhow::Result<Option<Newest>> {
    let mut steps = steps_in(&folder.checkpoints());
    steps.sort_unstable();
    let mut passed_over = Vec::new();
    for step in steps.into_iter().rev() {
        let path = folder.checkpoint(step);
        match checkpoint::load(&path) {
            Ok(checkpoint) => {
                return Ok(Some(Newest {
                    checkpoint,
                    path,
                    passed_over,
                }));
            }
            Err(error @ (ModelError::Checkpoint { .. } | ModelError::CheckpointIo { .. })) => {
                let problem = error.to_string();
                passed_over.push(PassedOver { path, problem });
            }
            Err(other) => return Err(other.into()),
        }
    }
    match passed_over.is_empty() {
        true => Ok(None),
        false => Err(ResumeError::NoneSound {
            folder: folder.checkpoints(),
            problems: passed_over.into_iter().map(|file| file.problem).collect(),
        }
        .into()),
    }
}

/// Puts a damaged file out of the way of whoever looks for the last checkpoint, and keeps it. What is in the way of that is
/// said in the log alone: the run does not depend on it.
pub fn set_aside(path: &Path) {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(DAMAGED);
    if let Err(error) = fs::rename(path, &name) {
        tracing::warn!("{} cannot be renamed: {error}", path.display());
    }
}

/// The steps of all files with a checkpoint's name.
pub(crate) fn steps_in(folder: &Path) -> Vec<u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let step = |name: &str| {
        let digits = name.strip_prefix("step-")?.strip_suffix(".safetensors")?;
        let is_ours = digits.len() >= 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_ours.then(|| digits.parse().ok()).flatten()
    };
    entries
        .filter_map(|entry| step(entry.file_name().to_str()?))
        .collect()
}

/// Removes what a killed process has left half-written.
pub fn remove_partial(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(".step-") && name.ends_with(".safetensors.partial") {
            // In the way of nothing: the next checkpoint of that name writes over it.
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_checkpoints_count() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "step-000000012.safetensors",
            "step-1000000000.safetensors",
            "step-000000013.safetensors.damaged",
            ".step-000000014.safetensors.partial",
            "step-15.safetensors",
            "step-00000001x.safetensors",
            "step-99999999999999999999999.safetensors",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let mut steps = steps_in(folder.path());
        steps.sort_unstable();
        assert_eq!(steps, [12, 1_000_000_000]);
        remove_partial(folder.path());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6);
    }
}
