//! Sources of images.

pub(crate) mod archive;
mod cifar_binary;
mod embedded;
mod format;
mod idx;
mod image_folder;
mod imagenet;
mod limited;
pub(crate) mod open;
pub mod packed;
mod parquet;
mod read_ahead;
pub(crate) mod shards;
mod subset;
mod synthetic;

use std::borrow::Cow;

use crate::{DataError, Image};

pub use archive::ArchiveImages;
pub use cifar_binary::CifarBinary;
pub use embedded::Embedded;
pub use format::Format;
pub use idx::Idx;
pub use image_folder::ImageFolder;
pub use limited::limited;
pub use open::{known_names, open, open_as};
pub use packed::Packed;
pub use parquet::{CACHE_VARIABLE, DEFAULT_CACHE_BYTES, Parquet, ParquetFiles};
pub use read_ahead::{ReadAhead, Reader, Reading, ReadingInOrder, Run, Shards};
pub use subset::subset;
pub use synthetic::Synthetic;

/// A finite list of images with or without labels. Reading is thread-safe.
pub trait Dataset: Send + Sync {
    /// What results call it, for example "Fashion-MNIST 10k/2k (embedded)".
    fn name(&self) -> &str;

    /// Number of images, at least one.
    fn len(&self) -> usize;

    /// Whether there is no image at all; the data sets of this crate refuse to open in that case.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class names in the order of their labels; empty if the images are unlabelled.
    fn class_names(&self) -> &[String];

    /// The label of image `index`, below `class_names().len()`; `None` if unlabelled.
    fn label(&self, index: usize) -> Option<u32>;

    /// Reads and decodes image `index`, which must be below `len()`.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Decode`] with the path or id of the image.
    fn image(&self, index: usize) -> Result<Image, DataError>;

    /// The bytes of image `index` as a file that [`crate::decode::decode`] reads; `None` where the source holds pixels. Whoever
    /// makes views can decode what they need of it.
    ///
    /// # Errors
    /// [`DataError::Io`] with the path or id of the image.
    fn encoded(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, DataError> {
        let _ = index;
        Ok(None)
    }

    /// Path or id of image `index`, for messages.
    fn describe(&self, index: usize) -> String;

    /// Which images lie together, if they lie in shards; `None` where any image is as near as any other.
    fn shards(&self) -> Option<Shards> {
        None
    }
}

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// For learning.
    Train,
    /// For measuring; called `test` or `val` on disk.
    Test,
}
