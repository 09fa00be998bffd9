//! The folder of one run: resolved configuration, metrics, checkpoints, final table.
//!
//! ```text
//! runs/demo-seed0-20240131-235959/
//!   config.toml       every setting of the run, preset and flags resolved
//!   metrics.jsonl     one JSON object a line, the first one about the run itself: what training did, whatever befell it
//!   history.jsonl     what befell it: starts, checkpoints with their times, stops, what was changed on resuming
//!   tensorboard/      the numbers of the metrics as an event file: tensorboard --logdir runs
//!   checkpoints/      step-000000780.safetensors, ...
//!   lock              whose the folder is at the moment
//!   summary.json      the final table, in percent
//!   evaluation.json   the measurements behind it, with their protocols
//!   nonfinite-*.json  steps whose loss or gradient was not finite, for `eqco-train replay`
//!   profile.json      with --profile: time and bytes of every operation
//! ```

mod error;
mod lock;
mod metrics_file;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use error::RunFolderError;
use error::file_on_the_way;
pub(crate) use lock::this_process;
pub use lock::{RunLock, lock_path};
pub use metrics_file::MetricsFile;

use crate::tensorboard::EventFile;

const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.jsonl";
const HISTORY: &str = "history.jsonl";
const SUMMARY: &str = "summary.json";
const EVALUATION: &str = "evaluation.json";
const PROFILE: &str = "profile.json";
const CHECKPOINTS: &str = "checkpoints";
const EVENTS: &str = "tensorboard";

/// A folder that holds one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    root: PathBuf,
}

impl RunFolder {
    /// Makes the folder and its parents.
    ///
    /// # Errors
    /// [`RunFolderError::Occupied`] when a run is in there already, otherwise what the system says.
    pub fn create(root: &Path) -> Result<Self, RunFolderError> {
        Self::check_free(root)?;
        Self::reuse(root)
    }

    /// The run folder at `root`, whether it is there or not.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Makes what is missing of a folder that may hold a run already, for whoever goes on with it.
    ///
    /// # Errors
    /// What the system says.
    pub fn reuse(root: &Path) -> Result<Self, RunFolderError> {
        let folder = Self {
            root: root.to_owned(),
        };
        let checkpoints = folder.checkpoints();
        fs::create_dir_all(&checkpoints)
            .map_err(|source| RunFolderError::writing(&checkpoints, source))?;
        Ok(folder)
    }

    /// Checks that a run could be put at `root`; writes nothing.
    ///
    /// # Errors
    /// [`RunFolderError::Occupied`], and [`RunFolderError::NotAFolder`] if `root` is a file or lies below one.
    pub fn check_free(root: &Path) -> Result<(), RunFolderError> {
        if let Some(path) = file_on_the_way(root) {
            return Err(RunFolderError::NotAFolder { path });
        }
        let parts = [CONFIG, METRICS, SUMMARY, CHECKPOINTS];
        if parts.iter().any(|part| root.join(part).exists()) {
            return Err(RunFolderError::Occupied {
                path: root.to_owned(),
            });
        }
        Ok(())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Where checkpoints stand.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join(CHECKPOINTS)
    }

    /// The checkpoint after `step` steps. Names sort in the order of steps.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints()
            .join(format!("step-{step:09}.safetensors"))
    }

    /// Where the resolved configuration stands.
    pub fn config(&self) -> PathBuf {
        self.root.join(CONFIG)
    }

    /// Writes the resolved configuration.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_config(&self, toml: &str) -> Result<(), RunFolderError> {
        replace(&self.config(), toml.as_bytes())
    }

    /// Writes the final table as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_summary(&self, table: &impl Serialize) -> Result<(), RunFolderError> {
        replace_json(&self.root.join(SUMMARY), table)
    }

    /// Writes the measurements behind the final table as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_evaluation(&self, comparison: &impl Serialize) -> Result<(), RunFolderError> {
        replace_json(&self.root.join(EVALUATION), comparison)
    }

    /// Writes where the time of training went, as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_profile(&self, report: &impl Serialize) -> Result<(), RunFolderError> {
        replace_json(&self.root.join(PROFILE), report)
    }

    /// Writes the file `name` of the folder as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(
        &self,
        name: &str,
        value: &impl Serialize,
    ) -> Result<PathBuf, RunFolderError> {
        let path = self.root.join(name);
        replace_json(&path, value)?;
        Ok(path)
    }

    /// Begins an event file. `wall_time`, in seconds since 1970, is part of its name, by which TensorBoard sorts them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn events(&self, wall_time: f64) -> Result<EventFile, RunFolderError> {
        let folder = self.root.join(EVENTS);
        let path = folder.join(format!("events.out.tfevents.{wall_time:.0}.eqco"));
        let begun = fs::create_dir_all(&folder)
            .and_then(|()| File::options().create(true).append(true).open(&path))
            .and_then(|file| EventFile::new(file, wall_time));
        begun.map_err(|source| RunFolderError::writing(&path, source))
    }

    /// Opens the run's event file behind its first `records` records, or the last whole one where there are fewer, and cuts
    /// off what follows. Where there is none, one is begun.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn resume_events(&self, records: u64, wall_time: f64) -> Result<EventFile, RunFolderError> {
        let folder = self.root.join(EVENTS);
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let is_ours = |path: &PathBuf| path.extension() == Some(OsStr::new("eqco"));
        let Some(path) = paths.filter(is_ours).max() else {
            return self.events(wall_time);
        };
        EventFile::cut(&path, records, wall_time)
            .map_err(|source| RunFolderError::writing(&path, source))
    }

    /// The error for an event that could not be written.
    pub(crate) fn events_failed(&self, source: io::Error) -> RunFolderError {
        RunFolderError::writing(&self.root.join(EVENTS), source)
    }

    /// Opens the metrics for appending.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn metrics(&self) -> Result<MetricsFile, RunFolderError> {
        MetricsFile::open(self.root.join(METRICS))
    }

    /// Opens the metrics behind their first `lines` lines, or the last whole one where there are fewer, and cuts off what
    /// follows.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn resume_metrics(&self, lines: u64) -> Result<MetricsFile, RunFolderError> {
        MetricsFile::cut(self.root.join(METRICS), lines)
    }

    /// Where the run's history stands.
    pub fn history(&self) -> PathBuf {
        self.root.join(HISTORY)
    }

    /// Takes away what describes the end of a run, when it goes on.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove_results(&self) -> Result<(), RunFolderError> {
        for name in [SUMMARY, EVALUATION] {
            let path = self.root.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(RunFolderError::writing(&path, error));
                }
                _ => (),
            }
        }
        Ok(())
    }
}

/// Writes a whole file beside its place and moves it there, so that nobody ever sees half of it.
fn replace(path: &Path, content: &[u8]) -> Result<(), RunFolderError> {
    let beside = path.with_extension("partial");
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|source| RunFolderError::writing(path, source))
}

fn replace_json(path: &Path, value: &impl Serialize) -> Result<(), RunFolderError> {
    let text = serde_json::to_vec_pretty(value);
    let mut text = text.map_err(|error| RunFolderError::writing(path, error.into()))?;
    text.push(b'\n');
    replace(path, &text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_folder_with_a_run_is_refused_and_an_empty_one_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        RunFolder::create(folder.path()).unwrap();
        let error = RunFolder::create(folder.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{} already holds a run", folder.path().display())
        );
        assert!(error.hint().contains("--out"));

        let file = folder.path().join("a file");
        fs::write(&file, "").unwrap();
        assert!(matches!(
            RunFolder::create(&file),
            Err(RunFolderError::NotAFolder { .. })
        ));
        let below = RunFolder::create(&file.join("run")).unwrap_err();
        assert!(
            matches!(below, RunFolderError::NotAFolder { .. }),
            "{below:?}"
        );
    }

    #[test]
    fn metrics_are_lines_of_json_and_survive_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        run.metrics()
            .unwrap()
            .write(&json!({"kind": "run", "seed": 3}))
            .unwrap();
        run.metrics()
            .unwrap()
            .write(&json!({"kind": "step", "loss": f64::NAN}))
            .unwrap();

        let text = fs::read_to_string(folder.path().join(METRICS)).unwrap();
        let records: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            records,
            [
                json!({"kind": "run", "seed": 3}),
                json!({"kind": "step", "loss": null})
            ]
        );
    }

    #[test]
    fn the_summary_replaces_an_older_one_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        run.write_summary(&json!({"a": 1})).unwrap();
        run.write_summary(&json!({"b": 2.5})).unwrap();
        let text = fs::read_to_string(folder.path().join(SUMMARY)).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, json!({"b": 2.5}));
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [CHECKPOINTS, SUMMARY]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_is_full_is_called_full() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        std::os::unix::fs::symlink("/dev/full", folder.path().join(METRICS)).unwrap();
        let error = run.metrics().unwrap().write(&json!({})).unwrap_err();
        assert!(
            matches!(error, RunFolderError::DiskFull { .. }),
            "{error:?}"
        );
        assert!(error.hint().contains("free some space"));
    }

    #[test]
    fn checkpoint_names_sort_by_step() {
        let run = RunFolder {
            root: PathBuf::from("run"),
        };
        assert_eq!(
            run.checkpoint(780),
            Path::new("run/checkpoints/step-000000780.safetensors")
        );
        assert!(run.checkpoint(99) < run.checkpoint(100));
    }

    #[test]
    fn a_full_disk_and_a_missing_permission_are_told_apart() {
        let path = Path::new("runs/x/metrics.jsonl");
        let full = RunFolderError::writing(path, io::ErrorKind::StorageFull.into());
        assert_eq!(
            full.to_string(),
            "the disk is full: cannot write runs/x/metrics.jsonl"
        );
        let refused = RunFolderError::writing(path, io::ErrorKind::PermissionDenied.into());
        assert_eq!(refused.to_string(), "cannot write runs/x/metrics.jsonl");
        assert!(refused.hint().contains("--out"));
    }
}
