//! Images in tar archives, read in place: an index tells where they lie, and nothing is ever unpacked.

mod header;
mod index;
mod index_file;
mod members;
mod positioned_file;
mod stored_index;

use std::borrow::Cow;
use std::path::PathBuf;

use super::{Dataset, Run, Shards};
use crate::{DataError, Image, decode};

pub(crate) use index::{Entry, Index, MOST_CLASSES, UNLABELLED};
pub(super) use members::{Member, Members};
pub(crate) use positioned_file::PositionedFile;
pub(super) use stored_index::{Places, stored_or_built};
#[cfg(feature = "remote")]
pub(crate) use stored_index::{cache_folder, fnv, index_in, keep_index};

use positioned_file::OpenFiles;

/// The largest image file that is read, in bytes.
const MOST_IMAGE_BYTES: u32 = 256 << 20;

/// Images in tar archives, with an index of where they lie.
///
/// Any number of threads read at once, at positions of their own. An index takes some 50 bytes of memory an image. Made
/// by [`super::open_as`] of what [`super::Format::ImagenetTar`] and [`super::Format::Shards`] describe.
#[derive(Debug)]
pub struct ArchiveImages {
    name: String,
    class_names: Vec<String>,
    index: Index,
    files: OpenFiles,
}

impl ArchiveImages {
    /// Images of `archives` that `index` lists.
    ///
    /// # Errors
    /// [`DataError::Labels`] if there are names of classes and an image has none of these, or none and an image has a class: an
    /// index from somewhere else may hold anything.
    pub(super) fn new(
        name: &str,
        class_names: Vec<String>,
        archives: Vec<PathBuf>,
        index: Index,
    ) -> Result<Self, DataError> {
        let fits = |label| match class_names.len() {
            0 => label == UNLABELLED,
            count => usize::from(label) < count,
        };
        if let Some(label) = index.labels().iter().find(|label| !fits(**label)) {
            let path = archives.first().cloned().unwrap_or_default();
            let expected = format!("labels of {} classes", class_names.len());
            return Err(DataError::labels(path, expected, label.to_string()));
        }
        let stamps = index.stamps().iter().copied();
        Ok(Self {
            name: name.to_owned(),
            files: OpenFiles::new(archives.into_iter().zip(stamps).collect()),
            class_names,
            index,
        })
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        let entry = self.index.entry(index);
        let file = self.files.get(entry.archive)?;
        image_bytes(&file, entry, || self.describe(index))
    }
}

/// The bytes of an image of this archive. `describe` names it.
pub(crate) fn image_bytes(
    archive: &PositionedFile,
    entry: Entry<'_>,
    describe: impl Fn() -> String,
) -> Result<Vec<u8>, DataError> {
    if entry.length > MOST_IMAGE_BYTES {
        return Err(DataError::Decode {
            image: describe(),
            reason: format!("{} bytes, more than {MOST_IMAGE_BYTES}", entry.length),
        });
    }
    archive.bytes(entry.offset, entry.length)
}

impl Dataset for ArchiveImages {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.index.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        let label = self.index.entry(index).label;
        (label != UNLABELLED).then_some(u32::from(label))
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        decode::decode(&self.bytes(index)?, &self.describe(index))
    }

    fn encoded(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, DataError> {
        self.bytes(index).map(|bytes| Some(bytes.into()))
    }

    fn describe(&self, index: usize) -> String {
        let entry = self.index.entry(index);
        let archive = self.files.path(entry.archive).display();
        format!("{archive}: {}", entry.name)
    }

    fn shards(&self) -> Option<Shards> {
        let counts = self.index.images_of_archives();
        let runs = (0..)
            .zip(counts)
            .map(|(shard, images)| Run { shard, images });
        Some(Shards {
            runs: runs.filter(|run| run.images > 0).collect(),
            ahead: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::positioned_file::Stamp;
    use super::*;

    #[test]
    fn an_index_with_labels_beyond_the_classes_is_refused() {
        for (label, classes, fits) in [
            (0, 1, true),
            (1, 1, false),
            (UNLABELLED, 1, false),
            (0, 0, false),
            (UNLABELLED, 0, true),
        ] {
            let mut index = Index::default();
            let place = (512, 10);
            index.push(Path::new("a.tar"), ("a", label), place).unwrap();
            index.end_archive(Stamp {
                size: 1024,
                modified: 0,
            });
            let names = vec!["class".to_owned(); classes];
            let opened = ArchiveImages::new("name", names, vec!["a.tar".into()], index);
            assert_eq!(opened.is_ok(), fits, "{label} of {classes}");
        }
    }
}
