//! Reads packed files through a memory map.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::format::{
    ENTRY_BYTES, Entry, Fault, HEADER_BYTES, Header, MAGIC, check_sum, part, part_name,
};
use super::names;
use crate::dataset::{Dataset, Split};
use crate::{DataError, Image, decode};

/// A part of a packed file ([the format](super::format)), as `eqco-train pack` writes them.
///
/// Opening checks the header, the length, the names and the part's index, and reads no image; memory does not grow with the
/// number of images, whose index is used in the map. An image is compared with its checksum whenever it is read: one that
/// differs is unreadable, as a damaged file is.
///
/// The file must not become shorter while it is open, for reading memory behind the end of a mapped file ends the process
/// (SIGBUS). Writers of this crate never do that: they put a new file in the old one's place. If somebody else does, the
/// length, which is looked up before every image, makes that an error, except in the moment between this and the reading.
#[derive(Debug)]
pub struct Packed {
    name: String,
    class_names: Vec<String>,
    path: PathBuf,
    split: Split,
    file: File,
    map: Mmap,
    /// Where the part's index is in the map.
    index: Range<usize>,
}

impl Packed {
    /// Whether a path is that of a packed file, told from its first bytes or from a name that ends in `.eqco`, which promises
    /// one.
    ///
    /// # Errors
    /// [`DataError::Io`] if it is a file that cannot be read.
    pub(crate) fn is_at(path: &Path) -> Result<bool, DataError> {
        // Not opened before it is known to be a file: opening a pipe would wait for its other end.
        if !path.is_file() {
            return Ok(false);
        }
        let promised = path
            .extension()
            .is_some_and(|extension| extension == "eqco");
        let mut start = Vec::new();
        let file = File::open(path).map_err(|error| DataError::io(path, error))?;
        file.take(MAGIC.len() as u64)
            .read_to_end(&mut start)
            .map_err(|error| DataError::io(path, error))?;
        Ok(promised || start == MAGIC)
    }

    /// Opens a part.
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::PackedFile`] if the file is no packed file, is of a newer version, is shorter or
    /// longer than it says, has an index or names that differ from their checksums or point outside, or lacks this part.
    pub fn open(path: &Path, split: Split) -> Result<Self, DataError> {
        let io_error = |error| DataError::io(path, error);
        let fault = |fault: Fault| fault.at(path);
        let mut file = File::open(path).map_err(io_error)?;
        let file_bytes = file.metadata().map_err(io_error)?.len();
        let mut start = Vec::new();
        file.by_ref()
            .take(HEADER_BYTES as u64)
            .read_to_end(&mut start)
            .map_err(io_error)?;
        let header = Header::read(&start, file_bytes).map_err(fault)?;
        // SAFETY: the map is only read. Bytes that another process changes under it are checked against their sums before
        // they are used and are never more than image data to a decoder that trusts nothing; that the file gets no shorter is
        // checked before every reading, as far as that can be done.
        let map = unsafe { Mmap::map(&file) }.map_err(io_error)?;
        let found = Contents::of(&map, &header, split).map_err(fault)?;
        Ok(Self {
            name: found.name,
            class_names: found.class_names,
            path: path.to_owned(),
            split,
            file,
            index: found.index,
            map,
        })
    }

    fn entry(&self, index: usize) -> Entry {
        let (entries, _) = self.map[self.index.clone()].as_chunks();
        Entry::read(&entries[index])
    }

    /// The bytes of an image, which are what they were when they were packed.
    fn body(&self, index: usize) -> Result<&[u8], DataError> {
        self.check_length()?;
        let Entry {
            offset, bytes, sum, ..
        } = self.entry(index);
        let body =
            slice(&self.map, offset, u64::from(bytes)).map_err(|fault| fault.at(&self.path))?;
        if crc32c::crc32c(body) == sum {
            return Ok(body);
        }
        Err(DataError::Decode {
            image: self.describe(index),
            reason: format!(
                "its checksum differs from the {sum:08x} of the index: the file is damaged"
            ),
        })
    }

    /// That the file is as long as its map.
    fn check_length(&self) -> Result<(), DataError> {
        let metadata = self.file.metadata();
        let bytes = metadata
            .map_err(|error| DataError::io(&self.path, error))?
            .len();
        if bytes >= self.map.len() as u64 {
            return Ok(());
        }
        let expected = format!("{} bytes, as when it was opened", self.map.len());
        Err(Fault::damaged(expected, format!("{bytes} bytes")).at(&self.path))
    }
}

/// What opening finds out.
struct Contents {
    name: String,
    class_names: Vec<String>,
    index: Range<usize>,
}

impl Contents {
    /// Reads and checks the names and the index of a part.
    fn of(map: &[u8], header: &Header, split: Split) -> Result<Self, Fault> {
        let names = slice(map, header.names_offset, header.names_bytes)?;
        check_sum("names", names, header.names_sum)?;
        let (name, class_names) = names::read(names)?;

        let (start, count) = (header.index_offset(split), header.counts[part(split)]);
        let index = slice(map, start, count * ENTRY_BYTES as u64)?;
        if index.is_empty() {
            return Err(Fault::without(split));
        }
        check_sum("an index", index, header.index_sums[part(split)])?;
        for (number, entry) in index.as_chunks().0.iter().enumerate() {
            let checked = Entry::read(entry).check(header.names_offset, class_names.len());
            checked.map_err(|fault| fault.of_image(number))?;
        }
        // It has just been sliced: the numbers fit.
        let start = start as usize;
        Ok(Self {
            name,
            class_names,
            index: start..start + index.len(),
        })
    }
}

/// Some bytes of the file.
fn slice(map: &[u8], offset: u64, bytes: u64) -> Result<&[u8], Fault> {
    let start = usize::try_from(offset).ok();
    let end = offset
        .checked_add(bytes)
        .and_then(|end| usize::try_from(end).ok());
    let found = start.zip(end).and_then(|(start, end)| map.get(start..end));
    found.ok_or_else(|| {
        let expected = format!("{bytes} bytes at {offset}");
        Fault::damaged(expected, format!("a map of {} bytes", map.len()))
    })
}

impl Dataset for Packed {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.index.len() / ENTRY_BYTES
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.entry(index).label
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        decode::decode(self.body(index)?, &self.describe(index))
    }

    fn encoded(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, DataError> {
        self.body(index).map(|bytes| Some(bytes.into()))
    }

    fn describe(&self, index: usize) -> String {
        let part = part_name(self.split);
        format!("{}, {part} image {index}", self.path.display())
    }
}
