//! Which files of a folder belong to which split.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::Split;
use crate::DataError;

/// Folders below the given one that are looked through: `data/`, or `SUBSET/SPLIT/`.
const MOST_DEPTH: usize = 3;

/// In a folder with more of them, folders are not looked into.
const MOST_FOLDERS: usize = 64;

/// More files than the largest sets have.
const MOST_FILES: usize = 100_000;

/// Words of file and folder names, and the split that they stand for.
const SPLIT_WORDS: [(&str, Part); 8] = [
    ("train", Part::Train),
    ("training", Part::Train),
    ("test", Part::Test),
    ("testing", Part::Test),
    ("validation", Part::Validation),
    ("valid", Part::Validation),
    ("val", Part::Validation),
    ("dev", Part::Validation),
];

/// What a file says it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Train,
    Test,
    Validation,
    /// Nothing is said.
    Any,
}

/// The files of a data set, by what they are for. Only names are looked at.
#[derive(Debug)]
pub struct ParquetFiles {
    /// Where they lie, for messages.
    root: PathBuf,
    /// Paths below the root, sorted.
    parts: BTreeMap<Part, Vec<String>>,
}

impl ParquetFiles {
    /// Sorts `names`, paths below `root` with `/` between folders; those without the extension `.parquet` are left out.
    ///
    /// # Errors
    /// [`DataError::Layout`] if no file is left, the files belong to several subsets, or some of a series
    /// (`-00000-of-00003`) are missing.
    pub fn of_names(
        root: &Path,
        names: impl IntoIterator<Item = String>,
    ) -> Result<Self, DataError> {
        let mut parts: BTreeMap<Part, Vec<String>> = BTreeMap::new();
        let mut subsets = BTreeMap::new();
        for name in names.into_iter().filter(|name| is_parquet(name)) {
            let folders = name.rsplit_once('/').map_or("", |(folders, _)| folders);
            let subset = folders.split('/').filter(|word| part_of(word) == Part::Any);
            let subset = subset.collect::<Vec<_>>().join("/");
            *subsets.entry(subset).or_insert(0_usize) += 1;
            parts.entry(part_of(&name)).or_default().push(name);
        }
        if subsets.len() > 1 {
            let shown = subsets.keys().take(12).map(|name| match &name[..] {
                "" => "the folder itself".to_owned(),
                name => format!("{name}/"),
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            let found = format!("Parquet files of {} subsets: {shown}", subsets.len());
            return Err(DataError::layout(root, "one of them", found));
        }
        if parts.is_empty() {
            return Err(DataError::layout(root, "Parquet files", "none"));
        }
        for files in parts.values_mut() {
            files.sort_unstable();
            check_series(root, files)?;
        }
        let root = root.to_path_buf();
        Ok(Self { root, parts })
    }

    /// The files in a folder and those below it; `None` if there is none. Hidden entries are left out.
    ///
    /// # Errors
    /// [`DataError::Io`], and those of [`ParquetFiles::of_names`].
    pub fn find(folder: &Path) -> Result<Option<Self>, DataError> {
        let mut names = Vec::new();
        add_names(folder, "", MOST_DEPTH, &mut names)?;
        if names.is_empty() {
            return Ok(None);
        }
        Self::of_names(folder, names).map(Some)
    }

    /// The names of the files of a split, sorted. Where there is both a test and a validation part, `has_labels` is asked about
    /// the first file of the test part: labels that are kept secret are of no use, and then it is the validation part.
    ///
    /// # Errors
    /// [`DataError::Layout`] if there is no such part, and those of `has_labels`.
    pub fn choose(
        &self,
        split: Split,
        has_labels: impl FnOnce(&str) -> Result<bool, DataError>,
    ) -> Result<&[String], DataError> {
        let part = |part| self.parts.get(&part).map(Vec::as_slice);
        let found = match split {
            Split::Train => part(Part::Train).or_else(|| part(Part::Any)),
            Split::Test => match (part(Part::Test), part(Part::Validation)) {
                (Some(test), Some(validation)) => {
                    let secret = !has_labels(&test[0])?;
                    Some(if secret { validation } else { test })
                }
                (test, validation) => test.or(validation),
            },
        };
        found.ok_or_else(|| {
            let expected = match split {
                Split::Train => "files called train-*.parquet, or train/*.parquet",
                Split::Test => "files called test-*.parquet or validation-*.parquet",
            };
            let names = self.parts.values().flatten();
            let shown: Vec<_> = names.take(5).map(String::as_str).collect();
            DataError::layout(&self.root, expected, shown.join(", "))
        })
    }
}

pub(super) fn is_parquet(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// By the words of a path; the last that stands for a split counts, as file names are more exact than folders'.
fn part_of(name: &str) -> Part {
    let words = name.rsplit(|c: char| !c.is_ascii_alphabetic());
    let mut parts = words.filter_map(|word| {
        let known = |(split, _): &&(&str, Part)| word.eq_ignore_ascii_case(split);
        SPLIT_WORDS.iter().find(known).map(|(_, part)| *part)
    });
    parts.next().unwrap_or(Part::Any)
}

/// Checks that files called `…-00001-of-00003…` are three.
fn check_series(root: &Path, files: &[String]) -> Result<(), DataError> {
    let mut series: BTreeMap<(&str, usize), Vec<usize>> = BTreeMap::new();
    for name in files {
        let Some((before, after)) = name.rsplit_once("-of-") else {
            continue;
        };
        let digits = after.find(|c: char| !c.is_ascii_digit());
        let count = after[..digits.unwrap_or(after.len())].parse();
        let Some((stem, number)) = before.rsplit_once('-') else {
            continue;
        };
        if let (Ok(count), Ok(number)) = (count, number.parse()) {
            series.entry((stem, count)).or_default().push(number);
        }
    }
    for ((stem, count), numbers) in series {
        if count <= MOST_FILES
            && let Some(missing) = (0..count).find(|number| !numbers.contains(number))
        {
            let found = format!("{} of them, number {missing} is missing", numbers.len());
            let expected = format!("{count} files {stem}-*-of-{count:05}");
            return Err(DataError::layout(root, expected, found));
        }
    }
    Ok(())
}

/// Whether a folder holds Parquet files, or one below it does.
pub(super) fn has_any(folder: &Path) -> Result<bool, DataError> {
    let mut names = Vec::new();
    add_names(folder, "", MOST_DEPTH, &mut names)?;
    Ok(!names.is_empty())
}

fn add_names(
    folder: &Path,
    prefix: &str,
    depth: usize,
    names: &mut Vec<String>,
) -> Result<(), DataError> {
    let io_error = |error| DataError::io(folder, error);
    let mut folders = Vec::new();
    for entry in folder.read_dir().map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let below = format!("{prefix}{name}");
        if is_parquet(name) {
            names.push(below);
        } else if depth > 1 && entry.file_type().map_err(io_error)?.is_dir() {
            folders.push((entry.path(), format!("{below}/")));
        }
        if names.len() > MOST_FILES {
            let expected = format!("at most {MOST_FILES} Parquet files");
            return Err(DataError::layout(folder, expected, "more"));
        }
    }
    // So many folders are classes of images.
    folders.truncate(if folders.len() > MOST_FOLDERS {
        0
    } else {
        MOST_FOLDERS
    });
    let mut folders = folders.into_iter();
    folders.try_for_each(|(path, prefix)| add_names(&path, &prefix, depth - 1, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Result<ParquetFiles, String> {
        let names = names.iter().map(|name| (*name).to_owned());
        ParquetFiles::of_names(Path::new("set"), names).map_err(|error| error.to_string())
    }

    fn chosen(names: &[&str], split: Split, has_labels: bool) -> Result<Vec<String>, String> {
        let files = files(names)?;
        let chosen = files.choose(split, |_| Ok(has_labels));
        chosen
            .map(<[String]>::to_vec)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn splits_are_told_by_words_of_the_path() {
        for (name, part) in [
            ("train-00000-of-00294.parquet", Part::Train),
            ("data/train-00000-of-00001-b42.parquet", Part::Train),
            ("default/validation/0000.parquet", Part::Validation),
            ("test_set/train.parquet", Part::Train),
            ("x/val.parquet", Part::Validation),
            ("TEST.parquet", Part::Test),
            ("trainer.parquet", Part::Any),
            ("0000.parquet", Part::Any),
        ] {
            assert_eq!(part_of(name), part, "{name}");
        }
    }

    #[test]
    fn a_test_part_without_labels_gives_way_to_validation() {
        let all = [
            "data/train-1.parquet",
            "data/test-1.parquet",
            "data/validation-1.parquet",
            "README.md",
        ];
        assert_eq!(
            chosen(&all, Split::Train, true).unwrap(),
            ["data/train-1.parquet"]
        );
        assert_eq!(
            chosen(&all, Split::Test, true).unwrap(),
            ["data/test-1.parquet"]
        );
        assert_eq!(
            chosen(&all, Split::Test, false).unwrap(),
            ["data/validation-1.parquet"]
        );
        // Where there is nothing else, nobody asks.
        assert_eq!(
            chosen(&all[..2], Split::Test, false).unwrap(),
            ["data/test-1.parquet"]
        );
        assert_eq!(
            chosen(&["b.parquet", "a.parquet"], Split::Train, true).unwrap(),
            ["a.parquet", "b.parquet"]
        );
        let error = chosen(&["b.parquet"], Split::Test, true).unwrap_err();
        assert_eq!(
            error,
            "set: expected files called test-*.parquet or validation-*.parquet, found b.parquet"
        );
    }

    #[test]
    fn missing_files_and_several_subsets_are_told() {
        let error = files(&[
            "train-00000-of-00003.parquet",
            "train-00002-of-00003.parquet",
        ])
        .unwrap_err();
        assert_eq!(
            error,
            "set: expected 3 files train-*-of-00003, found 2 of them, number 1 is missing"
        );
        let error =
            files(&["a/train-1.parquet", "b/train/1.parquet", "b/test/1.parquet"]).unwrap_err();
        assert_eq!(
            error,
            "set: expected one of them, found Parquet files of 2 subsets: a/, b/"
        );
        assert!(files(&["train-00000-of-99999999999.parquet"]).is_ok());
        assert_eq!(
            files(&["a.txt"]).unwrap_err(),
            "set: expected Parquet files, found none"
        );
    }
}
