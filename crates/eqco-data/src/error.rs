//! What can go wrong between a file name and a batch.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate: what was expected, what was found and where.
///
/// The text says what is wrong; [`DataError::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The source is neither a known name nor an existing path.
    #[error("no data set is called `{name}` and no such path exists")]
    UnknownSource {
        /// What the user asked for.
        name: String,
        /// Known names, the nearest first.
        nearest: Vec<String>,
    },
    /// The name is known, but its files are not on this machine.
    #[error(
        "the data set `{name}` has not been fetched: no folder data/fetched/{name} in {} or above it",
        searched_from.display()
    )]
    NotFetched {
        /// Manifest name.
        name: String,
        /// The folder from which the search went upwards.
        searched_from: PathBuf,
    },
    /// A folder or file does not have a layout that this crate reads.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Layout {
        /// The folder or file.
        path: PathBuf,
        /// The layout that would do.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A packed file is none, damaged, or without what is wanted of it.
    #[error("{}: expected {expected}, found {found}", path.display())]
    PackedFile {
        /// The file.
        path: PathBuf,
        /// What a whole file has in this place.
        expected: String,
        /// What is there.
        found: String,
        /// What to do about it.
        next: &'static str,
    },
    /// The operating system refused to write.
    #[error("cannot write {}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The reason it gave.
        source: io::Error,
    },
    /// An archive is damaged, or holds what this crate does not take from one.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What would do.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Labels are missing, or do not fit the images.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Labels {
        /// The file with the labels, or the folder that should hold one.
        path: PathBuf,
        /// What would do.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A data set of the Hugging Face hub cannot be had.
    #[error("{address}: {reason}")]
    Hub {
        /// `hf://datasets/…`.
        address: String,
        /// What the hub answered, or why it was not asked. Never holds the token.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A data set cannot be had from where it is kept: its server or store, or the cache for what comes from there.
    #[error("{address}: {reason}")]
    Remote {
        /// The shard, or else the data set.
        address: String,
        /// What was answered, or why nothing was asked. Never holds credentials.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason it gave.
        source: io::Error,
    },
    /// One image cannot be decoded.
    #[error("{image}: {reason}")]
    Decode {
        /// Path or id of the image.
        image: String,
        /// What the decoder says.
        reason: String,
    },
    /// A picture cannot be encoded.
    #[error("a picture cannot be encoded: {reason}")]
    Encode {
        /// What the encoder says.
        reason: String,
    },
    /// A setting is outside its range.
    #[error("{setting}: expected {expected}, got {got}")]
    InvalidSetting {
        /// Name of the setting, as in the configuration.
        setting: &'static str,
        /// The allowed values.
        expected: String,
        /// The value given.
        got: String,
    },
    /// More images were unreadable than the run tolerates.
    #[error(
        "{bad} of {total} images are unreadable, more than the allowed share of {max_bad_share}; \
         for example {}",
        examples.join("; ")
    )]
    TooManyBadImages {
        /// Unreadable images so far.
        bad: usize,
        /// Images in the data set.
        total: usize,
        /// The allowed share, 0 to 1.
        max_bad_share: f64,
        /// Up to five of them with their reasons.
        examples: Vec<String>,
    },
    /// A loader thread could not start, or ended without a result.
    #[error("a loader thread failed: {reason}")]
    Worker {
        /// The panic message or the operating system's reason.
        reason: String,
    },
}

impl DataError {
    /// What the user can do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            DataError::UnknownSource { name, .. } if name.contains(['/', '\\']) => {
                Some("check the path; it is taken from the current folder".to_owned())
            }
            DataError::InvalidSetting { setting, .. } if *setting == "batch_size" => {
                Some("give a batch size that fits, or more images".to_owned())
            }
            DataError::InvalidSetting { setting, .. } if *setting == "shard_window" => Some(
                "mix fewer shards at a time, or give their cache more room with EQCO_SHARD_CACHE_GIB"
                    .to_owned(),
            ),
            DataError::UnknownSource { nearest, .. } => Some(match nearest.first() {
                Some(first) => format!(
                    "did you mean `{first}`? Known names: {}; anything else is taken as a path",
                    nearest.join(", ")
                ),
                None => "give a known name or the path of a folder of images".to_owned(),
            }),
            DataError::NotFetched { name, .. } => Some(format!(
                "run `cargo xtask fetch {name}` or give a path instead"
            )),
            DataError::Layout { path, .. } if path.extension().is_some_and(|e| e == "parquet") => {
                Some(
                    "images are a column like `image` with bytes and path, labels one of whole \
                     numbers; copy a damaged file again"
                        .to_owned(),
                )
            }
            DataError::Layout { .. } => Some(
                "folders that can be read: train/CLASS/*.jpg with test/ or val/ beside train/, \
                 CLASS/*.jpg, *.jpg without classes, the four IDX files of MNIST, \
                 the binary files of CIFAR-10 or CIFAR-100, ILSVRC2012_img_train.tar and \
                 ILSVRC2012_img_val.tar, or WebDataset shards (*.tar, in train/ and val/ or with \
                 these words in their names); Parquet files of images (train-*.parquet), and a packed file instead of a folder; --format NAME says which it is"
                    .to_owned(),
            ),
            DataError::Hub { hint, .. } | DataError::Remote { hint, .. } => hint.clone(),
            DataError::Archive { .. } => Some(
                "compare its size with that of the original and copy it again, or write it anew \
                 with `tar` from files alone"
                    .to_owned(),
            ),
            DataError::Labels { .. } => Some(
                "labels of validation images: folders val/CLASS/; or beside val/ (or the archive) \
                 val_labels.txt with lines `FILE CLASS` or one CLASS a line in the order of the \
                 files, Kaggle's LOC_val_solution.csv, or ILSVRC2012_devkit_t12.tar.gz; labels of \
                 shards: KEY.cls with a number, or `label` in KEY.json"
                    .to_owned(),
            ),
            DataError::PackedFile { next, .. } => Some((*next).to_owned()),
            DataError::Unwritable { source, .. } => Some(match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "the disk is full: free some space, or choose another disk".to_owned()
                }
                _ => "choose a name in a folder that exists and that you may write to".to_owned(),
            }),
            DataError::TooManyBadImages { .. } => Some(
                "repair or remove these files, or raise `max_bad_share` if you can do without them"
                    .to_owned(),
            ),
            DataError::Decode { .. } => Some(
                "images are JPEG, PNG or WebP files: convert this one, or leave it out".to_owned(),
            ),
            _ => None,
        }
    }

    /// Whether no image is at fault but what it comes from: others would be missing, too, and none of them is to be skipped.
    pub fn is_of_source(&self) -> bool {
        matches!(self, DataError::Remote { .. })
    }

    /// An operating-system error with its path.
    pub(crate) fn io(path: impl AsRef<Path>, source: io::Error) -> Self {
        DataError::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// A file that could not be written.
    pub(crate) fn unwritable(path: impl AsRef<Path>, source: io::Error) -> Self {
        DataError::Unwritable {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// A layout error.
    pub(crate) fn layout(
        path: impl AsRef<Path>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        DataError::Layout {
            path: path.as_ref().to_path_buf(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// A damaged or unfit archive.
    pub(crate) fn archive(
        path: impl AsRef<Path>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        DataError::Archive {
            path: path.as_ref().to_path_buf(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// Labels that are missing or do not fit.
    pub(crate) fn labels(
        path: impl AsRef<Path>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        DataError::Labels {
            path: path.as_ref().to_path_buf(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// A setting outside its range.
    pub(crate) fn setting(
        setting: &'static str,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        DataError::InvalidSetting {
            setting,
            expected: expected.into(),
            got: got.to_string(),
        }
    }
}
