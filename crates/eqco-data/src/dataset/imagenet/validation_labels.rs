//! Labels of validation images that lie in one folder, as the publishers of ImageNet have them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::super::archive::{MOST_CLASSES, UNLABELLED};
use super::super::image_folder::KAGGLE;
use super::devkit;
use crate::DataError;

/// Files with labels, in the order in which they are looked for.
const LABEL_FILES: [&str; 6] = [
    "val_labels.txt",
    "val_labels.csv",
    "val_labels",
    // Kaggle's, TensorFlow's and Caffe's.
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "val.txt",
];

/// Ten times the size of Kaggle's file.
const MOST_BYTES: u64 = 32 << 20;

/// Class names, and the label of every image.
pub(in super::super) type Labels = (Vec<String>, Vec<u16>);

/// The labels of images called `files`, which are in order, by what lies in `folder`; `None` if there is nothing of the kind.
///
/// Looked for are text files with lines `FILE CLASS` or `FILE,CLASS` (more columns are passed over, files may lack their
/// extension, there may be more than there are images) or one `CLASS` a line in the order of the files; then the devkit.
/// A class is one of `classes`, by name or by number from 0. Without `classes`, these are the names in the file, sorted.
pub(in super::super) fn validation_labels(
    folder: &Path,
    files: &[&str],
    classes: Option<&[String]>,
) -> Result<Option<Labels>, DataError> {
    let kaggle = folder.ends_with(KAGGLE).then(|| folder.ancestors().nth(3));
    for name in LABEL_FILES {
        for folder in [Some(folder), kaggle.flatten()].into_iter().flatten() {
            let path = folder.join(name);
            if path.is_file() {
                return from_text(&path, &read_text(&path)?, files, classes).map(Some);
            }
        }
    }
    match devkit::wnids(folder, files)? {
        Some((path, wnids)) => {
            let wnids: Vec<&str> = wnids.iter().map(String::as_str).collect();
            numbered(&path, &wnids, classes).map(Some)
        }
        None => Ok(None),
    }
}

/// Reads a text file of no more than `MOST_BYTES`.
pub(super) fn read_text(path: &Path) -> Result<String, DataError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| DataError::io(path, error))?;
    if text.len() as u64 > MOST_BYTES {
        let expected = format!("at most {MOST_BYTES} bytes of labels");
        return Err(DataError::labels(path, expected, "more"));
    }
    Ok(text)
}

fn from_text(
    path: &Path,
    text: &str,
    files: &[&str],
    classes: Option<&[String]>,
) -> Result<Labels, DataError> {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split([',', ' ', '\t']))
        .map(|parts| parts.map(str::trim).filter(|part| !part.is_empty()))
        .map(|parts| parts.take(2).collect::<Vec<_>>())
        // Kaggle's first line names its columns.
        .filter(|parts| !parts.is_empty() && parts[0] != "ImageId")
        .collect();
    if lines.iter().all(|line| line.len() == 1) {
        if lines.len() != files.len() {
            let expected = format!("one label for each of {} images", files.len());
            let found = format!("{} lines", lines.len());
            return Err(DataError::labels(path, expected, found));
        }
        return numbered(path, &lines.concat(), classes);
    }
    numbered(path, &by_file(path, &lines, files)?, classes)
}

/// The class of every file, from lines that name both.
fn by_file<'a>(
    path: &Path,
    lines: &[Vec<&'a str>],
    files: &[&str],
) -> Result<Vec<&'a str>, DataError> {
    let mut given: HashMap<&str, &'a str> = HashMap::new();
    for line in lines {
        let [file, class] = line[..] else {
            let found = format!("`{}`", line.concat());
            return Err(DataError::labels(path, "`FILE CLASS` in every line", found));
        };
        let before = given.insert(stem(file), class);
        if before.is_some_and(|before| before != class) {
            let found = format!("two for `{file}`");
            return Err(DataError::labels(path, "one class for each file", found));
        }
    }
    let of_file = |file: &&str| {
        let class = given.get(stem(file)).copied();
        class.ok_or_else(|| {
            let expected = format!("a class for each of {} images", files.len());
            DataError::labels(path, expected, format!("none for `{file}`"))
        })
    };
    files.iter().map(of_file).collect()
}

/// A file's name without folders and extension.
fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The numbers of classes.
fn numbered(path: &Path, given: &[&str], classes: Option<&[String]>) -> Result<Labels, DataError> {
    let classes = match classes {
        Some(classes) => classes.to_vec(),
        None => {
            let mut names: Vec<String> = given.iter().map(|name| (*name).to_owned()).collect();
            names.sort_unstable();
            names.dedup();
            if let Some(number) = names.iter().find(|name| name.parse::<u64>().is_ok()) {
                let expected = "names of classes, as there are no training images whose classes numbers could mean";
                return Err(DataError::labels(path, expected, format!("`{number}`")));
            }
            names
        }
    };
    let places = classes.iter().enumerate();
    let places: HashMap<&str, usize> = places.map(|(at, name)| (name.as_str(), at)).collect();
    let count = classes.len().min(MOST_CLASSES);
    let label = |name: &&str| {
        let by_number = || name.parse().ok();
        let place = places.get(name).copied().or_else(by_number);
        let place = place.filter(|&place| place < count);
        place.map(|place| place as u16).ok_or_else(|| {
            let expected = format!("one of the {count} classes of training, or its number from 0");
            DataError::labels(path, expected, format!("`{name}`"))
        })
    };
    let labels = given.iter().map(label).collect::<Result<Vec<u16>, _>>()?;
    debug_assert!(!labels.contains(&UNLABELLED));
    Ok((classes, labels))
}
