//! From a name or path to a data set.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CifarBinary, Dataset, Embedded, Idx, ImageFolder, Parquet, Split, Synthetic};
use crate::DataError;

/// Data sets that are fetched into `data/fetched/NAME`, with the names for results.
const FETCHED: [(&str, &str); 3] = [
    ("fashion-mnist", "Fashion-MNIST"),
    ("cifar10", "CIFAR-10"),
    ("imagenette", "Imagenette"),
];

/// What addresses of the Hugging Face hub begin with.
pub(crate) const HUB_SCHEME: &str = "hf://";

/// Opens a data set by name or path.
///
/// | `source` | what is read |
/// |---|---|
/// | `embedded` | [`Embedded`] |
/// | `synthetic` | [`Synthetic`], 32 x 32, 2,000 training and 400 test images |
/// | `fashion-mnist`, `cifar10`, `imagenette` | `data/fetched/NAME` in the current folder or the nearest one above that has it |
/// | `hf://datasets/OWNER/NAME[@REVISION][/SUBSET]` | Parquet files of the Hugging Face hub, with feature `hub` |
/// | anything else | the path of a folder |
///
/// Folders: the IDX files of MNIST ([`Idx`]), CIFAR-10's binary batches ([`CifarBinary`]), Parquet files
/// ([`Parquet`], also a single one), or images ([`ImageFolder`]). A folder that holds nothing but one folder is looked through, as
/// archives often unpack into one.
///
/// # Errors
/// [`DataError::UnknownSource`] with the nearest names, [`DataError::NotFetched`],
/// [`DataError::Layout`] with what was expected and found, [`DataError::Hub`], [`DataError::Io`].
pub fn open(source: &str, split: Split) -> Result<Arc<dyn Dataset>, DataError> {
    if source == "embedded" {
        return Ok(Arc::new(Embedded::open(split)?));
    }
    if source == "synthetic" {
        let len = if split == Split::Train { 2_000 } else { 400 };
        return Ok(Arc::new(Synthetic::new(split, 32, len)?));
    }
    if let Some((name, title)) = FETCHED.iter().find(|(name, _)| *name == source) {
        return open_folder(&fetched_folder(name)?, title, split);
    }
    if source.starts_with(HUB_SCHEME) {
        return open_of_hub(source, split);
    }
    let path = Path::new(source);
    if !path.exists() {
        return Err(DataError::UnknownSource {
            name: source.to_owned(),
            nearest: names_by_likeness(source),
        });
    }
    let absolute = path
        .canonicalize()
        .map_err(|error| DataError::io(path, error))?;
    let title = absolute
        .file_name()
        .unwrap_or(absolute.as_os_str())
        .to_string_lossy();
    open_folder(path, &title, split)
}

#[cfg(feature = "hub")]
fn open_of_hub(source: &str, split: Split) -> Result<Arc<dyn Dataset>, DataError> {
    use crate::hub::{Hub, HubSettings};

    let settings = HubSettings::from_environment().map_err(|reason| DataError::Hub {
        address: source.to_owned(),
        reason,
        hint: None,
    })?;
    Ok(Arc::new(Hub::new(settings).open(source, split)?))
}

#[cfg(not(feature = "hub"))]
fn open_of_hub(source: &str, _: Split) -> Result<Arc<dyn Dataset>, DataError> {
    Err(DataError::Hub {
        address: source.to_owned(),
        reason: "this program was built without the feature `hub`".to_owned(),
        hint: Some(
            "build it with `--features hub`, or give the path of downloaded files".to_owned(),
        ),
    })
}

/// The names that [`open`] knows, whether or not their data is here.
pub fn known_names() -> impl Iterator<Item = &'static str> {
    let fetched = FETCHED.iter().map(|(name, _)| *name);
    ["embedded", "synthetic"].into_iter().chain(fetched)
}

/// All known names, the most similar first.
fn names_by_likeness(source: &str) -> Vec<String> {
    let mut names: Vec<String> = known_names().map(str::to_owned).collect();
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(name, source);
    names.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    names
}

/// Looks for `data/fetched/NAME` from the current folder upwards.
fn fetched_folder(name: &str) -> Result<PathBuf, DataError> {
    let here = std::env::current_dir().map_err(|error| DataError::io(".", error))?;
    let mut candidates = here
        .ancestors()
        .map(|folder| folder.join("data/fetched").join(name));
    candidates
        .find(|folder| folder.is_dir())
        .ok_or(DataError::NotFetched {
            name: name.to_owned(),
            searched_from: here,
        })
}

/// Recognises the layout of a folder and opens it.
fn open_folder(path: &Path, title: &str, split: Split) -> Result<Arc<dyn Dataset>, DataError> {
    if Parquet::is_at(path)? {
        return Ok(Arc::new(Parquet::open(path, title, split)?));
    }
    if !path.is_dir() {
        return Err(DataError::layout(path, "a folder", "a file"));
    }
    if Idx::is_in(path) {
        return Ok(Arc::new(Idx::open(path, title, split)?));
    }
    if CifarBinary::is_in(path) {
        return Ok(Arc::new(CifarBinary::open(path, title, split)?));
    }
    match ImageFolder::open(path, title, split) {
        Err(DataError::Layout {
            path: at,
            expected,
            found,
        }) => match only_entry(path)? {
            Some(inner) => open_folder(&inner, title, split),
            None => Err(DataError::Layout {
                path: at,
                expected,
                found,
            }),
        },
        opened => Ok(Arc::new(opened?)),
    }
}

/// The sub-folder, if a folder has exactly one visible entry and that is a folder.
fn only_entry(path: &Path) -> Result<Option<PathBuf>, DataError> {
    let mut visible = Vec::new();
    for entry in path
        .read_dir()
        .map_err(|error| DataError::io(path, error))?
    {
        let entry = entry.map_err(|error| DataError::io(path, error))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            visible.push(entry.path());
        }
    }
    // `train` alone is a layout with something missing, not a wrapper around another one. A link
    // might lead back up.
    Ok(visible.pop().filter(|only| {
        visible.is_empty()
            && only.is_dir()
            && !only.is_symlink()
            && !["train", "test", "val"]
                .iter()
                .any(|name| only.ends_with(name))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_path_is_not_taken_for_a_mistyped_name() {
        let error = open("no/such/folder", Split::Train).err().unwrap();
        assert!(error.hint().unwrap().starts_with("check the path"));
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn without_the_feature_the_hub_is_an_error_that_names_it() {
        let error = open("hf://datasets/a/b", Split::Train).err().unwrap();
        assert!(error.to_string().ends_with("without the feature `hub`"));
        assert!(error.hint().unwrap().contains("--features hub"));
    }

    #[test]
    fn unknown_names_are_answered_with_the_nearest() {
        for (asked, meant) in [
            ("fashion_mnist", "fashion-mnist"),
            ("cifar-10", "cifar10"),
            ("imagenete", "imagenette"),
            ("embeded", "embedded"),
        ] {
            let error = open(asked, Split::Train).err().unwrap();
            assert!(error.to_string().contains(asked));
            let hint = error.hint().unwrap();
            assert!(
                hint.starts_with(&format!("did you mean `{meant}`?")),
                "{hint}"
            );
        }
    }
}
