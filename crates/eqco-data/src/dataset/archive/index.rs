//! Where the images in archives lie: compact arrays, because ImageNet has 1.3 million of them.

use super::positioned_file::Stamp;
use crate::DataError;

/// The label of an image without one.
pub(crate) const UNLABELLED: u16 = u16::MAX;

/// The largest number of classes that labels have room for.
pub(crate) const MOST_CLASSES: usize = UNLABELLED as usize;

/// An image in one of some archives, by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// Which of the archives.
    pub(crate) archive: usize,
    /// First byte in it.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u32,
    /// [`UNLABELLED`], or below [`MOST_CLASSES`].
    pub(crate) label: u16,
    /// With `/` between folders.
    pub(crate) name: &'a str,
}

/// All images of some archives, archive after archive: 18 bytes an image and its name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(super) offsets: Vec<u64>,
    pub(super) lengths: Vec<u32>,
    pub(super) labels: Vec<u16>,
    /// All names, one behind the other, and where each ends.
    pub(super) names: String,
    pub(super) name_ends: Vec<u32>,
    /// Of every archive, the number of images in it and before it.
    pub(super) archive_ends: Vec<u32>,
    /// Of every archive.
    pub(super) stamps: Vec<Stamp>,
}

impl Index {
    /// Number of images.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Image `number`, which must be below `len()`.
    pub(crate) fn entry(&self, number: usize) -> Entry<'_> {
        let begin = number.checked_sub(1);
        let begin = begin.map_or(0, |before| self.name_ends[before] as usize);
        Entry {
            archive: self
                .archive_ends
                .partition_point(|&end| end as usize <= number),
            offset: self.offsets[number],
            length: self.lengths[number],
            label: self.labels[number],
            name: &self.names[begin..self.name_ends[number] as usize],
        }
    }

    /// Names in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|number| self.entry(number).name)
    }

    /// Number of images in every archive.
    pub(crate) fn images_of_archives(&self) -> impl Iterator<Item = u32> {
        let begins = [0].into_iter().chain(self.archive_ends.iter().copied());
        begins
            .zip(&self.archive_ends)
            .map(|(begin, end)| end - begin)
    }

    /// What every archive was when it was indexed.
    pub(crate) fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    /// One more than the largest label; 0 if there is none.
    pub(crate) fn class_count(&self) -> usize {
        let labelled = self.labels.iter().filter(|&&label| label != UNLABELLED);
        labelled.max().map_or(0, |&label| usize::from(label) + 1)
    }

    /// Labels in order.
    pub(crate) fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// Gives every image the label at its number.
    pub(crate) fn set_labels(&mut self, labels: Vec<u16>) {
        debug_assert_eq!(labels.len(), self.len());
        self.labels = labels;
    }

    /// Adds an image of the archive that is being indexed, whose path is for errors.
    pub(crate) fn push(
        &mut self,
        archive: &std::path::Path,
        (name, label): (&str, u16),
        (offset, size): (u64, u64),
    ) -> Result<(), DataError> {
        let length = u32::try_from(size).map_err(|_| {
            let found = format!("{size} bytes for `{name}`");
            DataError::archive(archive, "images of less than 4 GiB", found)
        })?;
        self.names.push_str(name);
        let name_end = u32::try_from(self.names.len()).map_err(|_| {
            let found = format!("more after {} images", self.len());
            DataError::archive(archive, "names of 4 GiB altogether", found)
        })?;
        self.offsets.push(offset);
        self.lengths.push(length);
        self.labels.push(label);
        self.name_ends.push(name_end);
        Ok(())
    }

    /// Ends the archive that is being indexed.
    pub(crate) fn end_archive(&mut self, stamp: Stamp) {
        // Names end below 2^32, and none is empty.
        self.archive_ends.push(self.len() as u32);
        self.stamps.push(stamp);
    }

    /// The images of the only archive in the order of their labels and, within one, of their names, as they are listed in a
    /// folder.
    pub(crate) fn sorted(self) -> Self {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_unstable_by_key(|&number| {
            let entry = self.entry(number as usize);
            (entry.label, entry.name)
        });
        let all = || order.iter().map(|&number| self.entry(number as usize));
        let mut names = String::with_capacity(self.names.len());
        let ends = all().map(|entry| {
            names.push_str(entry.name);
            names.len() as u32
        });
        Self {
            name_ends: ends.collect(),
            offsets: all().map(|entry| entry.offset).collect(),
            lengths: all().map(|entry| entry.length).collect(),
            labels: all().map(|entry| entry.label).collect(),
            archive_ends: self.archive_ends.clone(),
            stamps: self.stamps.clone(),
            names,
        }
    }

    /// Bytes of memory, room that is not in use included.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.offsets.capacity() * 8
            + self.lengths.capacity() * 4
            + self.labels.capacity() * 2
            + self.names.capacity()
            + self.name_ends.capacity() * 4
            + self.archive_ends.capacity() * 4
            + self.stamps.capacity() * size_of::<Stamp>()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn index(images: &[(&str, u16, u64)]) -> Index {
        let mut index = Index::default();
        for &(name, label, size) in images {
            let place = (size * 512, size);
            index
                .push(Path::new("a.tar"), (name, label), place)
                .unwrap();
        }
        index
    }

    #[test]
    fn images_are_found_in_their_archives() {
        let mut index = index(&[("a", 3, 1), ("bc", 0, 2)]);
        let stamp = |size| Stamp { size, modified: 0 };
        index.end_archive(stamp(1));
        index.end_archive(stamp(2));
        index
            .push(Path::new("c.tar"), ("d", UNLABELLED), (7, 8))
            .unwrap();
        index.end_archive(stamp(3));
        let found: Vec<_> = (0..3).map(|number| index.entry(number)).collect();
        let expected = |archive, (offset, length), label, name| Entry {
            archive,
            offset,
            length,
            label,
            name,
        };
        assert_eq!(found[0], expected(0, (512, 1), 3, "a"));
        assert_eq!(found[1], expected(0, (1024, 2), 0, "bc"));
        assert_eq!(found[2], expected(2, (7, 8), UNLABELLED, "d"));
        assert_eq!(index.class_count(), 4);
        let long = index.push(Path::new("d.tar"), ("e", 0), (0, 1 << 32));
        assert!(long.unwrap_err().to_string().contains("4294967296 bytes"));
    }

    #[test]
    fn sorting_goes_by_class_then_name() {
        let mut index = index(&[("b/2", 1, 1), ("a/9", 0, 2), ("b/1", 1, 3), ("a/10", 0, 4)]);
        index.end_archive(Stamp {
            size: 9,
            modified: 0,
        });
        let sorted = index.sorted();
        let found: Vec<_> = (0..4).map(|number| sorted.entry(number)).collect();
        let lengths = found.iter().map(|entry| (entry.name, entry.length));
        let expected = [("a/10", 4), ("a/9", 2), ("b/1", 3), ("b/2", 1)];
        assert!(lengths.eq(expected), "{found:?}");
        assert_eq!(found[3].offset, 512);
    }
}
