//! From a name or path to a data set.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    CifarBinary, Dataset, Embedded, Format, Idx, ImageFolder, Packed, Parquet, Split, Synthetic,
    imagenet, shards,
};
use crate::DataError;

/// Data sets that are fetched into `data/fetched/NAME`, with the names for results.
const FETCHED: [(&str, &str); 3] = [
    ("fashion-mnist", "Fashion-MNIST"),
    ("cifar10", "CIFAR-10"),
    ("imagenette", "Imagenette"),
];

/// What addresses of the Hugging Face hub begin with.
pub(crate) const HUB_SCHEME: &str = "hf://";

/// What addresses of shards on servers and in object stores begin with, in front of `://`.
pub(crate) const REMOTE_SCHEMES: [&str; 3] = ["http", "https", "s3"];

/// Opens a data set by name or path, in the format that it is found to have; see [`open_as`].
///
/// # Errors
/// As [`open_as`].
pub fn open(source: &str, split: Split) -> Result<Arc<dyn Dataset>, DataError> {
    open_as(source, split, None)
}

/// Opens a data set by name or path, in the given format, or else in the first of [`Format`]'s table that it is found to have.
///
/// | `source` | what is read |
/// |---|---|
/// | `embedded` | [`Embedded`] |
/// | `synthetic` | [`Synthetic`], 32 x 32, 2,000 training and 400 test images |
/// | `fashion-mnist`, `cifar10`, `imagenette` | `data/fetched/NAME` in the current folder or the nearest one above that has it |
/// | a path with braces, `train-{000..123}.tar` | shards, see [`Format::Shards`] |
/// | `hf://datasets/OWNER/NAME[@REVISION][/SUBSET]` | Parquet files of the Hugging Face hub, with feature `hub` |
/// | `https://HOST/…/NAME-{000..123}.tar`, `http://…`, `s3://BUCKET/…` | shards on a server or in a store, with feature `remote` |
/// | anything else | the path of a folder, of a tar file or of a packed file |
///
/// A folder that holds nothing but one folder is looked through, as archives often unpack into one.
///
/// # Errors
/// [`DataError::UnknownSource`] with the nearest names, [`DataError::NotFetched`],
/// [`DataError::Layout`], [`DataError::Archive`], [`DataError::Labels`], [`DataError::Hub`] and [`DataError::Remote`] with what was expected and found,
/// [`DataError::InvalidSetting`] for the format of a source that is no path, [`DataError::Io`].
pub fn open_as(
    source: &str,
    split: Split,
    format: Option<Format>,
) -> Result<Arc<dyn Dataset>, DataError> {
    if let Some(format) = format.filter(|_| ["embedded", "synthetic"].contains(&source)) {
        let expected = format!("none, as {source} has no files");
        return Err(DataError::setting("format", expected, format));
    }
    if source == "embedded" {
        return Ok(Arc::new(Embedded::open(split)?));
    }
    if source == "synthetic" {
        let len = if split == Split::Train { 2_000 } else { 400 };
        return Ok(Arc::new(Synthetic::new(split, 32, len)?));
    }
    if let Some((name, title)) = FETCHED.iter().find(|(name, _)| *name == source) {
        return open_path(&fetched_folder(name)?, title, split, format);
    }
    if source.starts_with(HUB_SCHEME) {
        if let Some(format) = format.filter(|format| *format != Format::Parquet) {
            let expected = "parquet, which data sets of the hub are";
            return Err(DataError::setting("format", expected, format));
        }
        return open_of_hub(source, split);
    }
    if is_remote(source) {
        if let Some(format) = format.filter(|format| *format != Format::Shards) {
            let expected = "shards, which data sets on servers and in object stores are";
            return Err(DataError::setting("format", expected, format));
        }
        return open_remote(source, split);
    }
    let path = Path::new(source);
    if let Some(scheme) = other_scheme(source).filter(|_| !path.exists()) {
        return Err(DataError::Remote {
            address: format!("{scheme}://…"),
            reason: "expected https, http, s3 or hf in front of ://".to_owned(),
            hint: Some(
                "shards are read from https://, http:// and s3://, data sets of the hub from hf://; copy what lies elsewhere \
                 to a disk and give its path"
                    .to_owned(),
            ),
        });
    }
    if shards::is_pattern(path) {
        return open_path(path, source, split, format);
    }
    if !path.exists() {
        return Err(DataError::UnknownSource {
            name: source.to_owned(),
            nearest: names_by_likeness(source),
        });
    }
    if Packed::is_at(path)? {
        return Ok(Arc::new(Packed::open(path, split)?));
    }
    let absolute = path
        .canonicalize()
        .map_err(|error| DataError::io(path, error))?;
    let title = absolute
        .file_name()
        .unwrap_or(absolute.as_os_str())
        .to_string_lossy();
    open_path(path, &title, split, format)
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

/// Whether a source is a web address or one of an object store.
fn is_remote(source: &str) -> bool {
    let scheme = source.split_once("://").map_or("", |(scheme, _)| scheme);
    REMOTE_SCHEMES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(scheme))
}

/// The scheme of an address that nothing here can read.
fn other_scheme(source: &str) -> Option<&str> {
    let (scheme, _) = source.split_once("://")?;
    let is_one = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric());
    is_one.then_some(scheme)
}

#[cfg(feature = "remote")]
fn open_remote(source: &str, split: Split) -> Result<Arc<dyn Dataset>, DataError> {
    use crate::remote::{Remote, RemoteSettings};

    let settings = RemoteSettings::from_environment()?;
    Ok(Arc::new(Remote::new(settings).open(source, split)?))
}

#[cfg(not(feature = "remote"))]
fn open_remote(source: &str, _: Split) -> Result<Arc<dyn Dataset>, DataError> {
    // The rest may hold a password.
    let scheme = source.split("://").next().unwrap_or_default();
    Err(DataError::Remote {
        address: format!("{scheme}://…"),
        reason: "this program was built without the feature `remote`".to_owned(),
        hint: Some(
            "build it with `--features remote`, or give the path of downloaded shards".to_owned(),
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

/// Opens a path in a format, or in the one that it has.
fn open_path(
    path: &Path,
    title: &str,
    split: Split,
    wanted: Option<Format>,
) -> Result<Arc<dyn Dataset>, DataError> {
    let Some(format) = wanted.or_else(|| Format::of(path)) else {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let found = format!(
            "a file (`{name}` is neither an archive *.tar, a Parquet file nor a packed file)"
        );
        return Err(DataError::layout(path, "a folder", found));
    };
    if format == Format::Folder && path.is_dir() {
        return match open_format(path, title, split, format) {
            Err(error @ DataError::Layout { .. }) => match only_entry(path)? {
                Some(inner) => open_path(&inner, title, split, wanted),
                None => Err(error),
            },
            opened => opened,
        };
    }
    if format.is_at(path) {
        return open_format(path, title, split, format);
    }
    if path.is_dir()
        && let Some(inner) = only_entry(path)?
    {
        return open_path(&inner, title, split, wanted);
    }
    let found = Format::of(path).map_or("no data set", Format::name);
    let expected = format!("format {format}: {}", format.expected());
    Err(DataError::layout(path, expected, found))
}

fn open_format(
    path: &Path,
    title: &str,
    split: Split,
    format: Format,
) -> Result<Arc<dyn Dataset>, DataError> {
    Ok(match format {
        Format::Packed => Arc::new(Packed::open(path, split)?),
        Format::Idx => Arc::new(Idx::open(path, title, split)?),
        Format::Cifar10 => Arc::new(CifarBinary::open(path, title, split)?),
        Format::Cifar100 => Arc::new(CifarBinary::open_100(path, title, split)?),
        Format::ImagenetTar => Arc::new(imagenet::open(path, title, split)?),
        Format::Shards => Arc::new(shards::open(path, title, split)?),
        Format::Parquet => Arc::new(Parquet::open(path, title, split)?),
        Format::Folder => Arc::new(ImageFolder::open(path, title, split)?),
    })
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

    #[cfg(not(feature = "remote"))]
    #[test]
    fn without_the_feature_remote_shards_are_an_error_that_names_it() {
        for source in ["https://a:secret@b/c.tar", "S3://b/{0..9}.tar"] {
            let error = open(source, Split::Train).err().unwrap();
            assert!(error.to_string().ends_with("without the feature `remote`"));
            assert!(!error.to_string().contains("secret"));
            assert!(error.hint().unwrap().contains("--features remote"));
        }
    }

    #[test]
    fn other_schemes_are_told_from_missing_files() {
        for source in ["ftp://a:secret@b/c-{0..3}.tar", "gs://bucket/c.tar"] {
            let error = open(source, Split::Train).err().unwrap();
            let scheme = source.split(':').next().unwrap();
            assert_eq!(
                error.to_string(),
                format!("{scheme}://…: expected https, http, s3 or hf in front of ://")
            );
            assert!(error.hint().unwrap().contains("give its path"));
        }
        let error = open("no folder/a://b", Split::Train).err().unwrap();
        assert!(error.hint().unwrap().starts_with("check the path"));
    }

    #[test]
    fn remote_shards_have_one_format() {
        let error = open_as("s3://b/c.tar", Split::Train, Some(Format::Idx)).err();
        assert!(error.unwrap().to_string().contains("expected shards"));
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
