//! Which checkpoint a run folder stands for.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::EvalError;

/// The checkpoint that `path` means: a file is taken as it is, a folder stands for the last
/// `*.safetensors` in its sub-folder `checkpoints`, or in itself if that has none.
///
/// "Last" is by name: runs name their checkpoints so that names sort by step, and unlike
/// modification times, names survive copying. Half-written files, whose names begin with a dot, are
/// passed over.
///
/// # Errors
/// [`EvalError::NoCheckpoint`] if the folder holds none or cannot be read. A path that does not
/// exist is left to whoever opens it.
pub fn find_checkpoint(path: &Path) -> Result<PathBuf, EvalError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    last_in(&path.join("checkpoints"))
        .or_else(|| last_in(path))
        .ok_or_else(|| EvalError::NoCheckpoint {
            path: path.to_owned(),
        })
}

fn last_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    let is_checkpoint = |path: &PathBuf| {
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        path.extension() == Some(OsStr::new("safetensors")) && !is_hidden && path.is_file()
    };
    entries.filter(is_checkpoint).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_its_last_checkpoint() {
        let run = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = run.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let error = find_checkpoint(run.path()).unwrap_err();
        assert!(matches!(error, EvalError::NoCheckpoint { .. }), "{error}");
        assert!(error.hint().unwrap().contains("folder of a run"));

        let beside = put("a.safetensors");
        assert_eq!(find_checkpoint(run.path()).unwrap(), beside);
        // Written first, so that times and names disagree.
        let last = put("checkpoints/step-000000100.safetensors");
        put("checkpoints/step-000000099.safetensors");
        put("checkpoints/.step-000000200.safetensors.partial");
        put("checkpoints/.step-000000300.safetensors");
        put("checkpoints/step-000000400.txt");
        fs::create_dir(run.path().join("checkpoints/step-5.safetensors")).unwrap();
        assert_eq!(find_checkpoint(run.path()).unwrap(), last);
        assert_eq!(find_checkpoint(&last).unwrap(), last);
        let absent = run.path().join("absent");
        assert_eq!(find_checkpoint(&absent).unwrap(), absent);
    }
}
