//! Values of a page: byte strings by their places, integers, places in a dictionary.

use super::levels;
use super::page::{Chunk, Content, Encoding, Page, Pages};
use super::stored_file::{Damage, OpenFile, damaged};

/// Bytes that are read at once to find the lengths of values.
const WINDOW_BYTES: u64 = 4096;

/// Where a byte string lies in its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Place {
    /// Stands for a value that is null; no page is so large that it could be a place.
    pub(super) const NULL: Place = Place {
        start: u32::MAX,
        len: u32::MAX,
    };
}

/// Stands for a null among places in a dictionary.
pub(super) const NULL_ENTRY: u32 = u32::MAX;

/// A page that is decoded as far as its values can be found quickly.
#[derive(Debug)]
pub(super) enum DecodedPage {
    /// Byte strings, one place a row.
    Strings { bytes: Vec<u8>, places: Vec<Place> },
    /// Places in the dictionary, one a row.
    Entries(Vec<u32>),
}

impl DecodedPage {
    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            DecodedPage::Strings { bytes, places } => {
                bytes.capacity() + places.capacity() * size_of::<Place>()
            }
            DecodedPage::Entries(entries) => entries.capacity() * size_of::<u32>(),
        }
    }

    /// Reads a page of byte strings, or of places in a dictionary of such.
    pub(super) fn read(
        page: &Page,
        file: &OpenFile<'_>,
        chunk: &Chunk,
        most: usize,
    ) -> Result<Self, Damage> {
        if page.values > chunk.rows {
            return damaged("a dictionary with more entries than its row group has rows");
        }
        let Content {
            bytes,
            values_at,
            defined,
        } = page.content(file, chunk, most)?;
        match page.encoding {
            Encoding::Dictionary => {
                entries(&bytes[values_at..], page, defined.as_deref()).map(Self::Entries)
            }
            Encoding::Plain => {
                let mut at = values_at;
                let places = places(page.values, defined.as_deref(), |_| {
                    let start = at + 4;
                    let length = bytes.get(at..start).map(little_endian);
                    let length = length.unwrap_or(u64::MAX) as usize;
                    at = start.saturating_add(length);
                    let is_within = at <= bytes.len();
                    // A page has less than 2 GiB.
                    Ok(is_within.then_some((start as u32, length as u32)))
                })?;
                Ok(Self::Strings { bytes, places })
            }
        }
    }
}

/// Finds the byte strings of an uncompressed page without reading them; places count from the beginning of the page.
pub(super) fn places_in_file(
    page: &Page,
    file: &OpenFile<'_>,
    chunk: &Chunk,
) -> Result<Vec<Place>, Damage> {
    let (range, defined) = page.values_in_place(file, chunk)?;
    let (mut at, mut window, mut window_at) = (range.start, Vec::new(), range.start);
    places(page.values, defined.as_deref(), |_| {
        let start = at + 4;
        if start > range.end {
            return Ok(None);
        }
        if start > window_at + window.len() as u64 {
            window = file.read(at, (range.end - at).min(WINDOW_BYTES) as usize)?;
            window_at = at;
        }
        let from = (at - window_at) as usize;
        let length = little_endian(&window[from..from + 4]);
        at = start + length;
        let is_within = at <= range.end;
        Ok(is_within.then_some(((start - page.offset) as u32, length as u32)))
    })
}

/// One place a row; `next` gives start and length of the next string, or `None` where the page ends within it.
fn places(
    rows: u32,
    defined: Option<&[bool]>,
    mut next: impl FnMut(usize) -> Result<Option<(u32, u32)>, Damage>,
) -> Result<Vec<Place>, Damage> {
    let mut places = Vec::with_capacity(rows as usize);
    for row in 0..rows as usize {
        if defined.is_some_and(|defined| !defined[row]) {
            places.push(Place::NULL);
            continue;
        }
        match next(row)? {
            Some((start, len)) => places.push(Place { start, len }),
            None => return damaged("a value beyond its page"),
        }
    }
    Ok(places)
}

/// Places in a dictionary, one a row.
fn entries(values: &[u8], page: &Page, defined: Option<&[bool]>) -> Result<Vec<u32>, Damage> {
    let rows = page.values as usize;
    let count = defined.map_or(rows, |defined| defined.iter().filter(|is| **is).count());
    if count == 0 {
        return Ok(vec![NULL_ENTRY; rows]);
    }
    let Some((&bits, values)) = values.split_first() else {
        return damaged("a page that ends too early");
    };
    let decoded = levels::decode(values, bits, count)?;
    Ok(match defined {
        None => decoded,
        Some(defined) => {
            let mut decoded = decoded.into_iter();
            let next = |&is: &bool| is.then(|| decoded.next()).flatten().unwrap_or(NULL_ENTRY);
            defined.iter().map(next).collect()
        }
    })
}

/// All integers of a column of `width` bytes each, 4 or 8; nulls are `None`. Memory for a page is at most `most` bytes.
pub(super) fn integers(
    chunk: &Chunk,
    file: &OpenFile<'_>,
    width: usize,
    most: usize,
) -> Result<Vec<Option<i64>>, Damage> {
    let Pages { dictionary, data } = chunk.pages(file)?;
    let dictionary = match dictionary {
        None => Vec::new(),
        Some(page) => {
            let content = page.content(file, chunk, most)?;
            plain_integers(&content.bytes, width, page.values as usize)?
        }
    };
    let mut all = Vec::with_capacity(chunk.rows as usize);
    for page in data {
        let content = page.content(file, chunk, most)?;
        let (values, defined) = (&content.bytes[content.values_at..], content.defined);
        match page.encoding {
            Encoding::Dictionary => {
                for entry in entries(values, &page, defined.as_deref())? {
                    all.push(match dictionary.get(entry as usize) {
                        Some(&value) => Some(value),
                        None if entry == NULL_ENTRY => None,
                        None => return damaged(format!("no entry {entry} in a dictionary")),
                    });
                }
            }
            Encoding::Plain => {
                let rows = page.values as usize;
                let defined = defined.unwrap_or_else(|| vec![true; rows]);
                let count = defined.iter().filter(|is| **is).count();
                let mut values = plain_integers(values, width, count)?.into_iter();
                all.extend(
                    defined
                        .iter()
                        .map(|&is| is.then(|| values.next()).flatten()),
                );
            }
        }
    }
    Ok(all)
}

fn plain_integers(bytes: &[u8], width: usize, count: usize) -> Result<Vec<i64>, Damage> {
    let Some(bytes) = count.checked_mul(width).and_then(|size| bytes.get(..size)) else {
        return damaged("a page that ends too early");
    };
    let value = |bytes: &[u8]| match width {
        4 => i64::from(little_endian(bytes) as u32 as i32),
        _ => little_endian(bytes) as i64,
    };
    Ok(bytes.chunks_exact(width).map(value).collect())
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}
