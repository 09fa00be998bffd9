//! The ways in which images lie on disk, and how they are told apart.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{CifarBinary, Idx, Packed, Parquet, imagenet, shards};
use crate::DataError;

/// How images lie on disk.
///
/// Without a wish, a path has the first format of this table whose files are there. Unpacked images stand above the archives
/// that they came from, which often lie beside them.
///
/// | format | told by |
/// |---|---|
/// | `packed` | a file that begins with the magic of packed files, or whose name ends in `.eqco` |
/// | `idx` | MNIST's `train-images-idx3-ubyte` or `t10k-images-idx3-ubyte`, plain or `.gz` |
/// | `cifar10` | `data_batch_1.bin` or `test_batch.bin` |
/// | `cifar100` | `fine_label_names.txt` with `train.bin` or `test.bin` |
/// | `imagenet-tar` | `ILSVRC2012_img_train.tar` or `ILSVRC2012_img_val.tar`, without `train/`, `val/` or `test/`; or one of these files itself |
/// | `shards` | `*.tar` in `train/`, `val/` or `test/`, or, without these, in the folder, and neither folders nor images beside them; a tar file; a pattern with braces |
/// | `parquet` | `*.parquet` in the folder or one below it, or such a file |
/// | `folder` | any other folder |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One file that `eqco-train pack` has written, see [`super::Packed`].
    Packed,
    /// MNIST's files, see [`super::Idx`].
    Idx,
    /// CIFAR-10's binary files, see [`super::CifarBinary`].
    Cifar10,
    /// CIFAR-100's binary files, see [`super::CifarBinary`].
    Cifar100,
    /// ImageNet's original archives, read in place. Labels of the validation images come from a file beside them, as in
    /// [`super::ImageFolder`].
    ImagenetTar,
    /// WebDataset's shards, read in place: members `KEY.jpg` (or .jpeg, .png, .webp) with a number in `KEY.cls`, as `label` or
    /// `cls` in `KEY.json`, or in `KEY.txt`. Those for training and testing lie in `train/` and in `test/` or `val/`, or have
    /// `train` and `val` or `test` as words in their names; a pattern names both with `{train,val}`. Names of classes may stand
    /// in `classes.txt` or `classes.json`.
    Shards,
    /// Hugging Face's Parquet files, see [`super::Parquet`].
    Parquet,
    /// Image files, see [`super::ImageFolder`].
    Folder,
}

impl Format {
    /// All formats in the order in which they are looked for.
    pub const ALL: [Self; 8] = [
        Self::Packed,
        Self::Idx,
        Self::Cifar10,
        Self::Cifar100,
        Self::ImagenetTar,
        Self::Shards,
        Self::Parquet,
        Self::Folder,
    ];

    /// The name in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::Idx => "idx",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
            Self::ImagenetTar => "imagenet-tar",
            Self::Shards => "shards",
            Self::Parquet => "parquet",
            Self::Folder => "folder",
        }
    }

    /// The format of the files at a path; `None` for a file of another kind than those in the table.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let has = |name: &&str| path.join(name).is_dir();
        let stands_behind = |format: &Self| match format {
            Self::ImagenetTar => ["train", "val", "test"].iter().any(has),
            Self::Shards => shards::are_unpacked(path),
            _ => false,
        };
        Self::ALL
            .into_iter()
            .find(|format| format.is_at(path) && !stands_behind(format))
    }

    /// Whether files of this format are at a path.
    pub(super) fn is_at(self, path: &Path) -> bool {
        match self {
            // What cannot be read says so when it is opened.
            Self::Packed => Packed::is_at(path).unwrap_or(true),
            Self::Idx => Idx::is_in(path),
            Self::Cifar10 => CifarBinary::has_10_in(path),
            Self::Cifar100 => CifarBinary::has_100_in(path),
            Self::ImagenetTar => imagenet::is_archive(path) || imagenet::is_in(path),
            Self::Shards => shards::is_at(path),
            Self::Parquet => Parquet::is_at(path).unwrap_or(false),
            Self::Folder => path.is_dir(),
        }
    }

    /// What is read in this format, in a few words.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Packed => "a file that `eqco-train pack` has written",
            Self::Idx => "a folder with train-images-idx3-ubyte or t10k-images-idx3-ubyte",
            Self::Cifar10 => "a folder with data_batch_1.bin or test_batch.bin",
            Self::Cifar100 => "a folder with fine_label_names.txt and train.bin or test.bin",
            Self::ImagenetTar => {
                "ILSVRC2012_img_train.tar or ILSVRC2012_img_val.tar, or a folder with them"
            }
            Self::Shards => {
                "a folder with *.tar, a tar file, or a pattern like {train,val}-{00..15}.tar"
            }
            Self::Parquet => "a folder with *.parquet, or such a file",
            Self::Folder => "a folder",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            DataError::setting("format", format!("one of {names}"), name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_configurations_and_on_the_command_line() {
        for format in Format::ALL {
            let written = serde_json::to_value(format).unwrap();
            assert_eq!(written, format.name());
            assert_eq!(serde_json::from_value::<Format>(written).unwrap(), format);
            assert_eq!(format.name().parse::<Format>().unwrap(), format);
        }
        let error = "imagenet_tar".parse::<Format>().unwrap_err().to_string();
        assert!(
            error.contains("imagenet-tar, shards, parquet, folder"),
            "{error}"
        );
    }
}
