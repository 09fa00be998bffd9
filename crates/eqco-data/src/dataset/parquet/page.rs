//! Pages of a column: where they lie, what they hold.

use super::CACHE_VARIABLE;
use super::codec::Codec;
use super::levels;
use super::stored_file::{Damage, OpenFile, damaged};
use super::thrift::{Fault, Kind, Reader};

/// Bytes read at first for a page's header, which has some 20 without statistics, and the most that one may have.
const HEADER_BYTES: u64 = 256;
const MOST_HEADER_BYTES: u64 = 1 << 20;

/// A column of a row group, its place and numbers checked against the file.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// Its bytes in the file.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) codec: Codec,
    /// Values, nulls included: the rows of the group.
    pub(super) rows: u32,
    /// The definition level of a value that is there.
    pub(super) max_definition: u8,
}

/// How values are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    /// Places in the chunk's dictionary.
    Dictionary,
}

/// Where definition levels lie in front of the values.
#[derive(Clone, Copy, Debug)]
enum Levels {
    /// Compressed with the values, behind their length.
    WithLength,
    /// This many bytes, never compressed; the values are if it is true.
    Apart(u32, bool),
}

/// A page: its header, and where its content lies.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) offset: u64,
    stored_bytes: u32,
    /// Without compression.
    pub(super) bytes: u32,
    /// Values, nulls included.
    pub(super) values: u32,
    pub(super) encoding: Encoding,
    levels: Levels,
}

/// The pages of a chunk.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) dictionary: Option<Page>,
    pub(super) data: Vec<Page>,
}

/// Content of a page without compression.
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// Where its values begin.
    pub(super) values_at: usize,
    /// Whether each value is there; `None` if all are.
    pub(super) defined: Option<Vec<bool>>,
}

impl Chunk {
    /// Reads the headers of all pages, and nothing of their content.
    pub(super) fn pages(&self, file: &OpenFile<'_>) -> Result<Pages, Damage> {
        let (mut at, mut rows) = (self.start, 0);
        let mut pages = Pages {
            dictionary: None,
            data: Vec::new(),
        };
        while rows < self.rows {
            let (header, offset) = self.header(file, at)?;
            at = offset + u64::from(header.stored_bytes);
            if at > self.end {
                let stored = header.stored_bytes;
                return damaged(format!("a page of {stored} bytes beyond its column"));
            }
            let values = header.values;
            match header.page(offset, self.max_definition)? {
                Some((page, true)) => pages.dictionary = Some(page),
                Some((page, false)) => {
                    if values > self.rows - rows {
                        return damaged(format!("a page of {values} rows beyond its row group"));
                    }
                    rows += values;
                    pages.data.push(page);
                }
                None => {}
            }
        }
        Ok(pages)
    }

    /// The header at `at`, and where it ends.
    fn header(&self, file: &OpenFile<'_>, at: u64) -> Result<(Header, u64), Damage> {
        let most = (self.end - at).min(MOST_HEADER_BYTES);
        let mut count = most.min(HEADER_BYTES);
        loop {
            let bytes = file.read(at, count as usize)?;
            let mut reader = Reader::new(&bytes);
            match Header::read(&mut reader) {
                Ok(header) => return Ok((header, at + (bytes.len() - reader.left()) as u64)),
                Err(Fault::Ended) if count < most => count = most.min(count * 16),
                Err(Fault::Ended) => return damaged("a column that ends within its pages"),
                Err(Fault::Malformed(what)) => {
                    return damaged(format!("a page header with {what}"));
                }
            }
        }
    }
}

/// The fields of a page's header.
#[derive(Debug, Default)]
struct Header {
    kind: i32,
    bytes: u32,
    stored_bytes: u32,
    values: u32,
    encoding: i32,
    level_encoding: Option<i32>,
    /// Definition and repetition levels' bytes, in pages of the second version.
    level_bytes: (u32, u32),
    is_compressed: bool,
}

impl Header {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (mut header, mut last) = (Header::default(), 0);
        header.is_compressed = true;
        while let Some((number, kind)) = reader.field(&mut last)? {
            match (number, kind) {
                (1, Kind::I32) => header.kind = reader.i32()?,
                (2, Kind::I32) => header.bytes = count(reader)?,
                (3, Kind::I32) => header.stored_bytes = count(reader)?,
                (5 | 7 | 8, Kind::Struct) => header.read_about(number, reader)?,
                _ => reader.skip(kind)?,
            }
        }
        Ok(header)
    }

    /// What is said about a page of data (field 5 of the header), a dictionary (7) or data of the second version (8).
    fn read_about(&mut self, about: i16, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let mut last = 0;
        while let Some((number, kind)) = reader.field(&mut last)? {
            match (about, number, kind) {
                (_, 1, Kind::I32) => self.values = count(reader)?,
                (5 | 7, 2, Kind::I32) | (8, 4, Kind::I32) => self.encoding = reader.i32()?,
                (5, 3, Kind::I32) => self.level_encoding = Some(reader.i32()?),
                (8, 5, Kind::I32) => self.level_bytes.0 = count(reader)?,
                (8, 6, Kind::I32) => self.level_bytes.1 = count(reader)?,
                (8, 7, Kind::Bool(value)) => self.is_compressed = value,
                _ => reader.skip(kind)?,
            }
        }
        Ok(())
    }

    /// The page whose content begins at `offset`, and whether it is a dictionary; `None` for an index, which nobody needs.
    fn page(self, offset: u64, max_definition: u8) -> Result<Option<(Page, bool)>, Damage> {
        let (is_dictionary, levels) = match self.kind {
            0 if max_definition == 0 || self.level_encoding == Some(3) => {
                (false, Levels::WithLength)
            }
            0 => return damaged("definition levels in an encoding that is no longer written"),
            1 => return Ok(None),
            2 => (true, Levels::Apart(0, true)),
            3 if self.level_bytes.1 == 0 => {
                let levels = Levels::Apart(self.level_bytes.0, self.is_compressed);
                (false, levels)
            }
            3 => return damaged("repetition levels in a column without lists"),
            kind => return damaged(format!("a page of the unknown kind {kind}")),
        };
        let encoding = match self.encoding {
            0 => Encoding::Plain,
            // A dictionary is plain under either number.
            2 | 8 if is_dictionary => Encoding::Plain,
            2 | 8 => Encoding::Dictionary,
            5 => return damaged("numbers in delta encoding"),
            6 | 7 => return damaged("bytes in delta encoding"),
            number => return damaged(format!("values in the unknown encoding {number}")),
        };
        let page = Page {
            offset,
            stored_bytes: self.stored_bytes,
            bytes: self.bytes,
            values: self.values,
            encoding,
            levels,
        };
        Ok(Some((page, is_dictionary)))
    }
}

/// A number that cannot be negative.
fn count(reader: &mut Reader<'_>) -> Result<u32, Fault> {
    u32::try_from(reader.i32()?).map_err(|_| Fault::Malformed("a negative size"))
}

impl Page {
    /// Whether its bytes lie in the file as they are.
    pub(super) fn is_uncompressed(&self, codec: Codec) -> bool {
        codec == Codec::Plain || matches!(self.levels, Levels::Apart(_, false))
    }

    /// Reads the page and undoes its compression; pages of more than `most` bytes are refused before that.
    pub(super) fn content(
        &self,
        file: &OpenFile<'_>,
        chunk: &Chunk,
        most: usize,
    ) -> Result<Content, Damage> {
        let size = self.bytes as usize;
        if size.max(self.stored_bytes as usize) > most {
            return damaged(format!(
                "a page of {size} bytes, more than the {most} bytes of memory for decoded pages ({CACHE_VARIABLE})"
            ));
        }
        let stored = file.read(self.offset, self.stored_bytes as usize)?;
        let bytes = match self.levels {
            _ if self.is_uncompressed(chunk.codec) => Codec::Plain.decompress(&stored, size)?,
            Levels::WithLength => chunk.codec.decompress(&stored, size)?,
            Levels::Apart(levels, _) => {
                let levels = levels as usize;
                if levels > stored.len() || levels > size {
                    return damaged("levels beyond their page");
                }
                let values = chunk.codec.decompress(&stored[levels..], size - levels)?;
                [&stored[..levels], &values].concat()
            }
        };
        let (values_at, defined) = self.definitions(chunk, &bytes)?;
        Ok(Content {
            bytes,
            values_at,
            defined,
        })
    }

    /// Reads what lies in front of the values of an uncompressed page, and where in the file they begin and end.
    pub(super) fn values_in_place(
        &self,
        file: &OpenFile<'_>,
        chunk: &Chunk,
    ) -> Result<(std::ops::Range<u64>, Option<Vec<bool>>), Damage> {
        if self.bytes != self.stored_bytes {
            return damaged("an uncompressed page of two sizes");
        }
        let before = match self.levels {
            Levels::Apart(levels, _) => levels,
            Levels::WithLength if chunk.max_definition == 0 => 0,
            Levels::WithLength => {
                let length = file.read(self.offset, self.stored_bytes.min(4) as usize)?;
                let length = little_endian(&length, 4).unwrap_or(u32::MAX);
                length.saturating_add(4)
            }
        };
        if before > self.stored_bytes {
            return damaged("levels beyond their page");
        }
        let bytes = file.read(self.offset, before as usize)?;
        let (values_at, defined) = self.definitions(chunk, &bytes)?;
        let end = self.offset + u64::from(self.stored_bytes);
        Ok((self.offset + values_at as u64..end, defined))
    }

    /// Decodes the definition levels at the beginning of `bytes`: where the values begin, and which are there.
    fn definitions(
        &self,
        chunk: &Chunk,
        bytes: &[u8],
    ) -> Result<(usize, Option<Vec<bool>>), Damage> {
        let range = match self.levels {
            Levels::Apart(length, _) => 0..length as usize,
            Levels::WithLength if chunk.max_definition == 0 => 0..0,
            Levels::WithLength => {
                let length = little_endian(bytes, 4).unwrap_or(u32::MAX) as usize;
                4..length.saturating_add(4)
            }
        };
        let Some(levels) = bytes.get(range.clone()) else {
            return damaged("levels beyond their page");
        };
        if levels.is_empty() {
            return Ok((range.end, None));
        }
        let bits = (u8::BITS - chunk.max_definition.leading_zeros()) as u8;
        let decoded = levels::decode(levels, bits, self.values as usize)?;
        let is_there = |level: &u32| *level == u32::from(chunk.max_definition);
        let defined: Vec<bool> = decoded.iter().map(is_there).collect();
        Ok((range.end, Some(defined).filter(|all| all.contains(&false))))
    }
}

/// The unsigned number in the first `count` bytes, if there are so many.
fn little_endian(bytes: &[u8], count: usize) -> Option<u32> {
    let bytes = bytes.get(..count)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |sum, &byte| sum << 8 | u32::from(byte)),
    )
}
