//! What is there already: how far the folder of a run has got.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Outcome, Point, SweepError};
use crate::config::{TrainConfig, known_keys, value_of};
use crate::run_folder::RunFolder;

/// How far a run has got.
#[derive(Clone, Debug, PartialEq)]
pub enum RunState {
    /// There is no such folder, or it is empty.
    Absent,
    /// Trained, and evaluated if that was wanted.
    Complete(Outcome),
    /// It was stopped, or has failed, before its end.
    Interrupted,
}

impl RunState {
    /// Looks at `folder` for the run of `point`.
    ///
    /// # Errors
    /// [`SweepError::OtherRun`] when it holds a run with other settings, [`SweepError::File`] when it cannot be read.
    pub fn of(point: &Point, folder: &Path) -> Result<Self, SweepError> {
        if RunFolder::check_free(folder).is_ok() {
            return Ok(Self::Absent);
        }
        let path = folder.join("config.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(_) if !path.exists() => return Ok(Self::Interrupted),
            Err(source) => return Err(SweepError::File { path, source }),
        };
        // A configuration that cannot be read is one of another version.
        let stored: Option<TrainConfig> = toml::from_str(&text).ok();
        if let Some((key, there, here)) = first_difference(stored.as_ref(), &point.config) {
            let path = folder.to_owned();
            return Err(SweepError::OtherRun {
                path,
                key,
                there,
                here,
            });
        }
        let outcome = Outcome::read(folder);
        Ok(if outcome.finished {
            Self::Complete(outcome)
        } else {
            Self::Interrupted
        })
    }
}

/// The first key with another value, and both values.
fn first_difference(
    there: Option<&TrainConfig>,
    here: &TrainConfig,
) -> Option<(String, String, String)> {
    let Some(there) = there else {
        let text = "a configuration of another version".to_owned();
        return Some(("config.toml".to_owned(), text, "this one's".to_owned()));
    };
    // A seed lies outside of the loader's serialised form, and is a key of its own.
    known_keys(here).into_iter().find_map(|key| {
        let (there, here) = (value_of(there, &key), value_of(here, &key));
        (there != here).then(|| (key, there.to_string(), here.to_string()))
    })
}

/// Moves what an interrupted run has left to a free name in `interrupted/`, so that nothing of it is lost.
///
/// # Errors
/// [`SweepError::File`].
pub(super) fn move_aside(sweep: &Path, name: &str) -> Result<PathBuf, SweepError> {
    let aside = sweep.join("interrupted");
    fs::create_dir_all(&aside).map_err(SweepError::file(&aside))?;
    let free = (1..).map(|number| aside.join(format!("{name}-{number}")));
    let target = free
        .into_iter()
        .find(|path| !path.exists())
        .expect("the list has no end");
    fs::rename(sweep.join(name), &target).map_err(SweepError::file(&target))?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ConfigArgs;
    use crate::sweep::Grid;

    fn points() -> Vec<Point> {
        let axes = ["negatives=4,16".to_owned()];
        Grid::new(&axes, 1, 0, 1, &ConfigArgs::default())
            .unwrap()
            .points
    }

    fn put(folder: &Path, point: &Point, metrics: &str, summary: Option<&str>) {
        fs::create_dir_all(folder.join("checkpoints")).unwrap();
        fs::write(folder.join("config.toml"), point.config.to_toml()).unwrap();
        fs::write(folder.join("metrics.jsonl"), metrics).unwrap();
        if let Some(summary) = summary {
            fs::write(folder.join("summary.json"), summary).unwrap();
        }
    }

    #[test]
    fn a_run_is_complete_when_it_is_trained_and_evaluated() {
        let sweep = tempfile::tempdir().unwrap();
        let point = &points()[0];
        let folder = sweep.path().join(&point.name);
        assert_eq!(RunState::of(point, &folder).unwrap(), RunState::Absent);
        let end = "{\"kind\":\"end\",\"step\":4,\"finished\":true}\n";
        let stopped = end.replace("true", "false");
        put(&folder, point, &stopped, None);
        assert_eq!(RunState::of(point, &folder).unwrap(), RunState::Interrupted);
        put(
            &folder,
            point,
            end,
            Some(r#"{"pretrained":{"knn_top1":41.5,"linear_top1":43.0}}"#),
        );
        let state = RunState::of(point, &folder).unwrap();
        assert!(matches!(state, RunState::Complete(outcome) if outcome.knn_top1 == Some(41.5)));
    }

    #[test]
    fn another_run_in_the_folder_is_told_by_its_first_key() {
        let sweep = tempfile::tempdir().unwrap();
        let points = points();
        let folder = sweep.path().join("run");
        put(&folder, &points[1], "", None);
        let error = RunState::of(&points[0], &folder).unwrap_err();
        let text = error.to_string();
        assert!(
            text.ends_with("holds another run: `method.negative_count` is 16 there and 4 here"),
            "{text}"
        );
    }

    #[test]
    fn what_is_moved_aside_is_kept_every_time() {
        let sweep = tempfile::tempdir().unwrap();
        for number in [1, 2] {
            fs::create_dir(sweep.path().join("run")).unwrap();
            let target = move_aside(sweep.path(), "run").unwrap();
            assert_eq!(
                target,
                sweep.path().join(format!("interrupted/run-{number}"))
            );
            assert!(target.is_dir() && !sweep.path().join("run").exists());
        }
    }
}
