//! Shards as WebDataset and img2dataset write them, on the local disk: tar archives of images with labels beside them.

mod class_names;
mod pattern;
mod samples;

use std::path::{Path, PathBuf};

use super::Split;
use super::archive::{ArchiveImages, Index, Places, PositionedFile, UNLABELLED, stored_or_built};
use super::image_folder::Entries;
use crate::DataError;

pub(crate) use class_names::ClassNames;
#[cfg(feature = "remote")]
pub(crate) use {pattern::expand, samples::add as add_samples};

pub(super) use pattern::is_pattern;

const EXPECTED: &str =
    "shards (*.tar) in train/ and in val/ or test/, or with one of these words in their names";

/// Whether a path is that of a shard or of a folder that holds some, or a pattern.
pub(super) fn is_at(path: &Path) -> bool {
    is_pattern(path) || (path.is_file() && is_tar(path)) || is_in(path)
}

/// Whether images or folders lie beside the shards in a folder, which then are what these were unpacked from.
pub(super) fn are_unpacked(folder: &Path) -> bool {
    let mut folders = split_folders(folder);
    if folders.is_empty() {
        folders.push(folder.to_path_buf());
    }
    let holds_others = |folder: &PathBuf| {
        let entries = Entries::read(folder);
        entries.is_ok_and(|entries| !(entries.folders.is_empty() && entries.images.is_empty()))
    };
    folder.is_dir() && folders.iter().any(holds_others)
}

/// Whether a folder holds shards: in `train/`, `val/` or `test/`, or, where it has none of these, itself.
fn is_in(folder: &Path) -> bool {
    let split_folders = split_folders(folder);
    let has_shards = |folder: &PathBuf| tar_files(folder).is_ok_and(|files| !files.is_empty());
    match split_folders.is_empty() {
        true => has_shards(&folder.to_path_buf()),
        false => split_folders.iter().any(has_shards),
    }
}

/// Opens a split of the shards in a folder, of one shard, or of those that a pattern names; in the order of their names.
///
/// A sample is the members of the same name up to its first dot: an image (.jpg, .jpeg, .png or .webp), and a label in `.cls`,
/// as `label` or `cls` in `.json`, or in `.txt` (other text there is a caption). Either all samples have labels or none.
/// Names of classes come from `classes.txt` or `classes.json` beside the shards or in the folder above, or are numbers.
pub(super) fn open(source: &Path, title: &str, split: Split) -> Result<ArchiveImages, DataError> {
    let (train, test) = splits(source)?;
    let shards = match split {
        Split::Train => train.clone(),
        Split::Test => test,
    };
    let Some(first) = shards.first() else {
        let found = match split {
            Split::Train => "none for training",
            Split::Test => "none for testing",
        };
        return Err(DataError::layout(source, EXPECTED, found));
    };
    let index = index(&shards)?;
    check_one_split([&index], first)?;
    if !is_labelled([&index], first)? {
        return ArchiveImages::new(title, Vec::new(), shards, index);
    }
    let used = index.class_count();
    let names = match ClassNames::beside(first)? {
        Some(names) => names.for_labels(used)?,
        None if split == Split::Test && !train.is_empty() => {
            ClassNames::of_training(used, self::index(&train)?.class_count(), first)?
        }
        None => ClassNames::numbers(used),
    };
    ArchiveImages::new(title, names, shards, index)
}

fn index(shards: &[PathBuf]) -> Result<Index, DataError> {
    stored_or_built(&Places::of(shards), "samples", shards, || {
        let mut index = Index::default();
        for path in shards {
            let file = PositionedFile::open(path)?;
            samples::add(&mut index, &file)?;
            index.end_archive(file.stamp());
        }
        if index.len() == 0 {
            let expected = "images (.jpg, .jpeg, .png or .webp)";
            let first = shards.first().map_or(Path::new(""), PathBuf::as_path);
            return Err(DataError::archive(first, expected, "none in any shard"));
        }
        Ok(index)
    })
}

/// Refuses the archive of a whole data set: its test images would be trained on.
pub(crate) fn check_one_split<'a>(
    indices: impl IntoIterator<Item = &'a Index>,
    first: &Path,
) -> Result<(), DataError> {
    let folder_of_split = |name: &str| {
        let folders = name.rsplit_once('/').map_or("", |(folders, _)| folders);
        let known = |folder: &&str| ["train", "val", "test"].contains(folder);
        folders.split('/').find(known).map(str::to_owned)
    };
    let names = indices.into_iter().flat_map(Index::names);
    let mut splits = names.filter_map(folder_of_split);
    let Some(one) = splits.next() else {
        return Ok(());
    };
    match splits.find(|other| *other != one) {
        None => Ok(()),
        Some(other) => Err(DataError::layout(
            first,
            "shards of one split each; unpack the archive of a whole data set, and give its folder",
            format!("images in folders `{one}` and `{other}`"),
        )),
    }
}

/// Whether samples have labels, which all have or none.
pub(crate) fn is_labelled<'a>(
    indices: impl IntoIterator<Item = &'a Index>,
    first: &Path,
) -> Result<bool, DataError> {
    let (mut labelled, mut unlabelled) = (None, None);
    for index in indices {
        let mut all = (0..index.len()).map(|number| index.entry(number));
        labelled = labelled.or_else(|| all.clone().find(|entry| entry.label != UNLABELLED));
        unlabelled = unlabelled.or_else(|| all.find(|entry| entry.label == UNLABELLED));
    }
    if let (Some(labelled), Some(unlabelled)) = (labelled, unlabelled) {
        let expected = format!("a label for every image, as for `{}`", labelled.name);
        let found = format!("none for `{}`", unlabelled.name);
        return Err(DataError::labels(first, expected, found));
    }
    Ok(labelled.is_some())
}

/// The shards for training and for testing.
fn splits(source: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
    if is_pattern(source) {
        return by_name(source, pattern::files(source)?);
    }
    if source.is_file() {
        return by_name(source, vec![source.to_path_buf()]);
    }
    if split_folders(source).is_empty() {
        return by_name(source, tar_files(source)?);
    }
    let shards_in = |names: &[&str]| {
        let folder = names
            .iter()
            .map(|name| source.join(name))
            .find(|folder| folder.is_dir());
        folder.map_or_else(|| Ok(Vec::new()), |folder| tar_files(&folder))
    };
    Ok((shards_in(&["train"])?, shards_in(&["test", "val"])?))
}

fn split_folders(folder: &Path) -> Vec<PathBuf> {
    let folders = ["train", "test", "val"].map(|name| folder.join(name));
    folders
        .into_iter()
        .filter(|folder| folder.is_dir())
        .collect()
}

fn is_tar(path: &Path) -> bool {
    let extension = path.extension();
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}

/// The visible tar files in a folder, by name.
fn tar_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io_error = |error| DataError::io(folder, error);
    let mut files = Vec::new();
    for entry in folder.read_dir().map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if is_tar(&path) && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Divides shards by the words in their names. Where no name has one, all are for training.
pub(crate) fn by_name(
    source: &Path,
    shards: Vec<PathBuf>,
) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
    let mut groups: [Vec<PathBuf>; 4] = Default::default();
    for shard in shards {
        let group = match split_words(&shard)[..] {
            [] => 0,
            ["train"] => 1,
            ["val"] => 2,
            ["test"] => 3,
            _ => {
                let found = format!("two in `{}`", shard.display());
                return Err(DataError::layout(
                    source,
                    "one word for the split in each name",
                    found,
                ));
            }
        };
        groups[group].push(shard);
    }
    let [plain, train, val, test] = groups;
    let named = [&train, &val, &test]
        .iter()
        .any(|shards| !shards.is_empty());
    match (plain.first(), val.first(), test.first()) {
        (Some(shard), ..) if named => {
            let found = format!("none in `{}`", shard.display());
            Err(DataError::layout(
                source,
                "train, val or test in each name or in none",
                found,
            ))
        }
        (_, Some(val), Some(test)) => {
            let found = format!("`{}` and `{}`", val.display(), test.display());
            Err(DataError::layout(
                source,
                "shards for validation or for testing; give a pattern that leaves one away",
                found,
            ))
        }
        _ if named => Ok((train, [val, test].concat())),
        _ => Ok((plain, Vec::new())),
    }
}

/// The splits that words in a file's name tell.
fn split_words(path: &Path) -> Vec<&'static str> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    let words = name.split(|letter: char| !letter.is_alphabetic());
    let split = |word: &str| match word {
        "train" | "training" => Some("train"),
        "val" | "valid" | "validation" => Some("val"),
        "test" | "testing" => Some("test"),
        _ => None,
    };
    let mut found: Vec<&str> = words.filter_map(split).collect();
    found.sort_unstable();
    found.dedup();
    found
}
