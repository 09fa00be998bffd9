//! From paths to run folders.

use std::fs;
use std::path::{Path, PathBuf};

use super::ReportError;

/// The file that makes a folder a run.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// Where a sweep puts what runs that were stopped have left: they have been done anew since.
const SET_ASIDE: &str = "interrupted";

/// Runs that a page takes.
const MOST_RUNS: usize = 200;

/// Levels of folders below a path that are searched.
const DEPTH: usize = 2;

/// The run folders that `paths` stand for: a folder with `metrics.jsonl` is one, any other stands for those up to two levels
/// below it, but not in a folder `interrupted`. The order is that of the paths, below each that of the names, numbers in them by value; a folder that is met
/// twice is taken once.
///
/// # Errors
/// [`ReportError::Absent`] and [`ReportError::NotARun`] for a path without a run, [`ReportError::TooMany`] for more than
/// 200 runs, [`ReportError::Unreadable`] for a folder that cannot be listed.
pub fn find_runs(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ReportError> {
    let (mut found, mut seen) = (Vec::new(), Vec::new());
    for path in paths {
        if !path.exists() {
            return Err(ReportError::Absent { path: path.clone() });
        }
        let mut below = Vec::new();
        search(path, DEPTH, &mut below)?;
        if below.is_empty() {
            return Err(ReportError::NotARun { path: path.clone() });
        }
        for run in below {
            let unique = run.canonicalize().unwrap_or_else(|_| run.clone());
            if !seen.contains(&unique) {
                seen.push(unique);
                found.push(run);
            }
        }
    }
    match found.len() {
        count if count > MOST_RUNS => Err(ReportError::TooMany {
            found: count,
            most: MOST_RUNS,
        }),
        _ => Ok(found),
    }
}

fn search(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), ReportError> {
    if path.join(METRICS).is_file() {
        found.push(path.to_owned());
        return Ok(());
    }
    if depth == 0 || !path.is_dir() {
        return Ok(());
    }
    let unreadable = |source| ReportError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let below = entry.map_err(unreadable)?.path();
        if below.is_dir() && !below.ends_with(SET_ASIDE) {
            folders.push(below);
        }
    }
    folders.sort_by_key(|folder| natural_key(&folder.to_string_lossy()));
    folders
        .iter()
        .try_for_each(|folder| search(folder, depth - 1, found))
}

/// A key by which `k4` comes before `k16` and `t0.05` before `t0.1`: runs of digits count by their value, behind a point as
/// the decimals that they are.
fn natural_key(name: &str) -> Vec<(u64, String)> {
    let is_digit = |letter: &char| letter.is_ascii_digit();
    let letters: Vec<char> = name.chars().collect();
    let mut key: Vec<(u64, String)> = Vec::new();
    for part in letters.chunk_by(|a, b| is_digit(a) == is_digit(b)) {
        let text: String = part.iter().collect();
        let is_decimals = key.last().is_some_and(|(_, before)| before == ".");
        let value = if is_decimals { None } else { text.parse().ok() };
        key.push((value.unwrap_or(u64::MAX), text));
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_two_levels_down_in_the_order_of_their_names() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "k16",
            "k4",
            "deep/er",
            "too/deep/for/me",
            "empty",
            "interrupted/k4-1",
        ] {
            let folder = root.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            if name != "empty" {
                fs::write(folder.join(METRICS), "").unwrap();
            }
        }
        let names = |paths: &[PathBuf]| -> Vec<String> {
            let runs = find_runs(paths).unwrap();
            let names = runs
                .iter()
                .map(|run| run.strip_prefix(root.path()).unwrap());
            names
                .map(|name| name.to_string_lossy().into_owned())
                .collect()
        };
        let whole = root.path().to_owned();
        assert_eq!(
            names(std::slice::from_ref(&whole)),
            ["deep/er", "k4", "k16"]
        );
        assert_eq!(
            names(&[whole.join("k16"), whole.clone()]),
            ["k16", "deep/er", "k4"]
        );
    }

    #[test]
    fn numbers_in_names_count_by_their_value() {
        let mut names = ["k16-t0.2", "k4-t0.1", "k4-t0.05", "k4", "a"];
        names.sort_by_key(|name| natural_key(name));
        assert_eq!(names, ["a", "k4", "k4-t0.05", "k4-t0.1", "k16-t0.2"]);
    }

    #[test]
    fn a_path_without_a_run_is_an_error_with_a_hint() {
        let root = tempfile::tempdir().unwrap();
        let error = find_runs(&[root.path().to_owned()]).unwrap_err();
        assert!(
            error.to_string().ends_with("found no metrics.jsonl"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("--out"));
        let error = find_runs(&[root.path().join("absent")]).unwrap_err();
        assert!(
            error.to_string().ends_with("found nothing at this path"),
            "{error}"
        );
    }
}
