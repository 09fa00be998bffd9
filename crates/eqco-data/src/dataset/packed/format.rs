//! The bytes of a packed file, version 1.
//!
//! All numbers are little-endian, nothing is aligned, and the parts follow each other without gaps. Checksums are CRC-32C
//! (Castagnoli).
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic: `89 45 51 43 4f 0d 0a 1a` (`\x89EQCO\r\n\x1a`; as with PNG, a transfer as text would change it) |
//! | 8 | 4 | version of the format: 1 |
//! | 12 | 4 | checksum of the names |
//! | 16 | 8 | length of the whole file |
//! | 24 | 8 | offset of the names (N), where the bodies end |
//! | 32 | 8 | length of the names (L) |
//! | 40 | 8 | training images (A) |
//! | 48 | 8 | test images (B) |
//! | 56 | 4 | checksum of the training images' index |
//! | 60 | 4 | checksum of the test images' index |
//! | 64 | 4 | checksum of the 64 bytes before |
//! | 68 | N - 68 | bodies: JPEG or PNG files, one after the other |
//! | N | L | names: that of the source, then the classes; see below |
//! | N + L | 20 A | index of the training images, 20 bytes each; see below |
//! | N + L + 20 A | 20 B | index of the test images |
//!
//! Names: `u32` length and UTF-8 text of the source's name; `u32` number of classes; for each class, in the order of labels,
//! `u32` length and UTF-8 text.
//!
//! | offset in an entry of an index | bytes | what |
//! |---|---|---|
//! | 0 | 8 | offset of the body from the beginning of the file |
//! | 8 | 4 | length of the body, up to 4 GiB |
//! | 12 | 4 | label, below the number of classes; `ff ff ff ff` (-1) without classes |
//! | 16 | 4 | checksum of the body |
//!
//! Both parts of a data set are in one file: they share the classes, and there is one file to copy and to name. Either may be
//! empty. The index stands behind the bodies, so that the file is written in one go; only the header is filled in at the end.

use std::path::Path;

use crate::DataError;
use crate::dataset::Split;

/// The first bytes of a packed file.
pub const MAGIC: [u8; 8] = *b"\x89EQCO\r\n\x1a";

/// The version of the format that this crate writes and reads.
pub const VERSION: u32 = 1;

/// Length of the header, where the first body begins.
pub const HEADER_BYTES: usize = 68;

/// Length of an image's entry in the index.
pub const ENTRY_BYTES: usize = 20;

const NO_LABEL: u32 = u32::MAX;

const DAMAGED: &str = "the file is damaged or incomplete: copy it again, or pack the images again";
const NOT_OURS: &str = "give a file that `eqco-train pack` has written";
const TOO_NEW: &str = "use the eqco-train that wrote it, or pack the images again with this one";

/// What is wrong with a file, before its path is known.
#[derive(Debug)]
pub(super) struct Fault {
    expected: String,
    found: String,
    next: &'static str,
}

impl Fault {
    pub(super) fn damaged(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            found: found.into(),
            next: DAMAGED,
        }
    }

    /// A part without any image.
    pub(super) fn without(split: Split) -> Self {
        Self {
            expected: format!("{} images", part_name(split)),
            found: "none".to_owned(),
            next: "pack both parts of the data set: `eqco-train pack --split both`",
        }
    }

    /// Says which image it is about.
    pub(super) fn of_image(mut self, number: usize) -> Self {
        self.found.push_str(&format!(" for image {number}"));
        self
    }

    pub(super) fn at(self, path: &Path) -> DataError {
        DataError::PackedFile {
            path: path.to_owned(),
            expected: self.expected,
            found: self.found,
            next: self.next,
        }
    }
}

/// Checks stored bytes against the checksum that was stored for them.
pub(super) fn check_sum(what: &str, bytes: &[u8], stored: u32) -> Result<(), Fault> {
    let computed = crc32c::crc32c(bytes);
    if computed == stored {
        return Ok(());
    }
    Err(Fault::damaged(
        format!("{what} with the checksum {stored:08x}"),
        format!("bytes with {computed:08x}"),
    ))
}

/// The header but for magic, version and its own checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) file_bytes: u64,
    pub(super) names_offset: u64,
    pub(super) names_bytes: u64,
    pub(super) names_sum: u32,
    /// Of the training and the test part.
    pub(super) counts: [u64; 2],
    pub(super) index_sums: [u32; 2],
}

/// The place of a part in the arrays of [`Header`].
pub(super) fn part(split: Split) -> usize {
    match split {
        Split::Train => 0,
        Split::Test => 1,
    }
}

/// What messages call a part.
pub(super) fn part_name(split: Split) -> &'static str {
    match split {
        Split::Train => "training",
        Split::Test => "test",
    }
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.names_sum.to_le_bytes());
        let longs = [
            self.file_bytes,
            self.names_offset,
            self.names_bytes,
            self.counts[0],
            self.counts[1],
        ];
        for (place, long) in bytes[16..56].chunks_exact_mut(8).zip(longs) {
            place.copy_from_slice(&long.to_le_bytes());
        }
        bytes[56..60].copy_from_slice(&self.index_sums[0].to_le_bytes());
        bytes[60..64].copy_from_slice(&self.index_sums[1].to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..64]);
        bytes[64..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads and checks the header of a file of `file_bytes`, which begins with `start`: afterwards all parts are known to
    /// lie in the file and to fill it.
    pub(super) fn read(start: &[u8], file_bytes: u64) -> Result<Self, Fault> {
        check_kind(start)?;
        let Some(bytes) = start.first_chunk::<HEADER_BYTES>() else {
            return Err(Fault::damaged(
                format!("a header of {HEADER_BYTES} bytes"),
                format!("a file of {file_bytes} bytes"),
            ));
        };
        check_sum("a header", &bytes[..64], u32_at(bytes, 64))?;
        let header = Self {
            names_sum: u32_at(bytes, 12),
            file_bytes: u64_at(bytes, 16),
            names_offset: u64_at(bytes, 24),
            names_bytes: u64_at(bytes, 32),
            counts: [u64_at(bytes, 40), u64_at(bytes, 48)],
            index_sums: [u32_at(bytes, 56), u32_at(bytes, 60)],
        };
        if header.file_bytes != file_bytes {
            return Err(Fault::damaged(
                format!("{} bytes, as the header says", header.file_bytes),
                format!("{file_bytes} bytes"),
            ));
        }
        let bodies_fit = header.names_offset >= HEADER_BYTES as u64;
        if !bodies_fit || header.end() != Some(file_bytes) {
            return Err(Fault::damaged(
                format!("parts that make up the file's {file_bytes} bytes"),
                format!("a header that says {header:?}"),
            ));
        }
        Ok(header)
    }

    /// Where the last part ends; `None` beyond 2^64.
    fn end(&self) -> Option<u64> {
        let [train, test] = self
            .counts
            .map(|count| count.checked_mul(ENTRY_BYTES as u64));
        let names_end = self.names_offset.checked_add(self.names_bytes)?;
        names_end.checked_add(train?)?.checked_add(test?)
    }

    /// Where the index of a part begins. Of a header that has been checked.
    pub(super) fn index_offset(&self, split: Split) -> u64 {
        let before = match split {
            Split::Train => 0,
            Split::Test => self.counts[0],
        };
        self.names_offset + self.names_bytes + before * ENTRY_BYTES as u64
    }
}

/// Whether these are the first bytes of a packed file in a version that can be read.
fn check_kind(start: &[u8]) -> Result<(), Fault> {
    let begins = &start[..start.len().min(MAGIC.len())];
    if begins != MAGIC {
        let next = if MAGIC.starts_with(begins) {
            DAMAGED
        } else {
            NOT_OURS
        };
        return Err(Fault {
            expected: format!("a packed file, which begins with {MAGIC:02x?}"),
            found: format!("{begins:02x?}"),
            next,
        });
    }
    match start.get(8..12).map(|bytes| u32_at(bytes, 0)) {
        Some(version) if version > VERSION => Err(Fault {
            expected: format!("version {VERSION} of the format"),
            found: format!("version {version}"),
            next: TOO_NEW,
        }),
        Some(0) => Err(Fault::damaged(
            format!("version {VERSION} of the format"),
            "version 0",
        )),
        _ => Ok(()),
    }
}

/// Where an image is, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) label: Option<u32>,
    pub(super) sum: u32,
}

impl Entry {
    pub(super) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.label.unwrap_or(NO_LABEL).to_le_bytes());
        bytes[16..].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    pub(super) fn read(bytes: &[u8; ENTRY_BYTES]) -> Self {
        Self {
            offset: u64_at(bytes, 0),
            bytes: u32_at(bytes, 8),
            label: Some(u32_at(bytes, 12)).filter(|label| *label != NO_LABEL),
            sum: u32_at(bytes, 16),
        }
    }

    /// Whether the body lies between header and names, and the label is one of so many classes.
    pub(super) fn check(&self, names_offset: u64, classes: usize) -> Result<(), Fault> {
        let end = self.offset.checked_add(u64::from(self.bytes));
        if self.offset < HEADER_BYTES as u64 || end.is_none_or(|end| end > names_offset) {
            let expected = format!("bytes from {HEADER_BYTES} to {names_offset}");
            return Err(Fault::damaged(
                expected,
                format!("{} bytes at {}", self.bytes, self.offset),
            ));
        }
        if !label_fits(self.label, classes) {
            let expected = format!("the label of one of {classes} classes");
            let found = self
                .label
                .map_or("none".to_owned(), |label| label.to_string());
            return Err(Fault::damaged(expected, found));
        }
        Ok(())
    }
}

/// Whether images with so many classes may have this label: all have one, or none.
pub(super) fn label_fits(label: Option<u32>, classes: usize) -> bool {
    match label {
        Some(label) => (label as usize) < classes,
        None => classes == 0,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
