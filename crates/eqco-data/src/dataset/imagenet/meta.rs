//! The table of synsets in the development kit's `meta.mat`, a file of MATLAB's version 5.
//!
//! Format: MathWorks, "MAT-File Format", <https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf>. Only what the
//! table needs is read: an array of structures whose fields are numbers and texts.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::ZlibDecoder;

/// A hundred times what ImageNet's table unpacks to.
const MOST_BYTES: u64 = 64 << 20;

// Types of data elements.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const DOUBLE: u32 = 9;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
const UTF8: u32 = 16;

/// The class of an array of structures.
const STRUCTURES: u8 = 2;

/// What is found instead.
type Problem = String;

/// The WNIDs of synsets by their number (`ILSVRC2012_ID`).
///
/// # Errors
/// What is wrong, in words that follow "found".
pub(super) fn synsets(file: &[u8]) -> Result<BTreeMap<u32, String>, Problem> {
    let body = match file.get(124..128) {
        Some([_, 1, b'I', b'M']) => &file[128..],
        _ => return Err("something else than a MAT file of version 5".to_owned()),
    };
    let mut elements = Elements(body);
    while let Some((kind, content)) = elements.next()? {
        let unpacked;
        let content = match kind {
            COMPRESSED => {
                unpacked = inflate(content)?;
                match Elements(&unpacked).next()? {
                    Some((MATRIX, content)) => content,
                    _ => continue,
                }
            }
            MATRIX => content,
            _ => continue,
        };
        let array = Array::parse(content)?;
        if array.name == b"synsets" && array.class == STRUCTURES {
            return table(array);
        }
    }
    Err("no array of structures `synsets`".to_owned())
}

fn inflate(content: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut unpacked = Vec::new();
    ZlibDecoder::new(content)
        .take(MOST_BYTES)
        .read_to_end(&mut unpacked)
        .map_err(|error| format!("compressed data that cannot be read: {error}"))?;
    Ok(unpacked)
}

fn table(array: Array<'_>) -> Result<BTreeMap<u32, String>, Problem> {
    let mut elements = array.rest;
    let width = match elements.next()? {
        Some((INT32, &[a, b, c, d])) => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => return Err("structures without names of fields".to_owned()),
    };
    let names = match elements.next()? {
        Some((INT8, names)) if width > 0 => names.chunks(width).map(text),
        _ => return Err("structures without names of fields".to_owned()),
    };
    let names: Vec<String> = names.collect();
    let field = |wanted: &str| {
        let place = names.iter().position(|name| name == wanted);
        place.ok_or_else(|| format!("structures without a field `{wanted}`"))
    };
    let (number_at, wnid_at) = (field("ILSVRC2012_ID")?, field("WNID")?);
    let mut synsets = BTreeMap::new();
    let (mut number, mut at) = (None, 0);
    let mut wnid = None;
    while let Some((kind, content)) = elements.next()? {
        if kind != MATRIX {
            return Err(format!("an element of type {kind} among the fields"));
        }
        if at == number_at {
            number = Some(Array::parse(content)?.number()?);
        } else if at == wnid_at {
            wnid = Some(Array::parse(content)?.text()?);
        }
        at += 1;
        if at == names.len() {
            at = 0;
            if let (Some(number), Some(wnid)) = (number.take(), wnid.take())
                && synsets.insert(number, wnid).is_some()
            {
                return Err(format!("two synsets of number {number}"));
            }
        }
    }
    match synsets.is_empty() || at != 0 {
        true => Err("no whole table".to_owned()),
        false => Ok(synsets),
    }
}

/// Data elements, one behind the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// Type and content of the next one.
    fn next(&mut self) -> Result<Option<(u32, &'a [u8])>, Problem> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let cut_short = || "an element that is cut short".to_owned();
        let (tag, rest) = self.0.split_first_chunk::<8>().ok_or_else(cut_short)?;
        let [a, b, c, d, e, f, g, h] = *tag;
        let (kind, size) = (
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]) as usize,
        );
        // Up to four bytes stand within the tag.
        if kind >> 16 != 0 {
            let size = (kind >> 16) as usize;
            let content = self.0[4..8].get(..size).ok_or_else(cut_short)?;
            self.0 = rest;
            return Ok(Some((kind & 0xffff, content)));
        }
        let content = rest.get(..size).ok_or_else(cut_short)?;
        let padded = match kind {
            COMPRESSED => size,
            _ => size.next_multiple_of(8),
        };
        self.0 = rest.get(padded..).unwrap_or_default();
        Ok(Some((kind, content)))
    }
}

/// An array: its class, its name, and its values, which are not read yet.
struct Array<'a> {
    class: u8,
    name: &'a [u8],
    rest: Elements<'a>,
}

impl<'a> Array<'a> {
    fn parse(content: &'a [u8]) -> Result<Self, Problem> {
        let mut rest = Elements(content);
        let flags = rest.next()?;
        let dimensions = rest.next()?;
        let name = rest.next()?;
        match (flags, dimensions, name) {
            (Some((UINT32, [class, ..])), Some((INT32, _)), Some((INT8, name))) => Ok(Self {
                class: *class,
                name,
                rest,
            }),
            _ => Err("an array without flags, dimensions and name".to_owned()),
        }
    }

    /// The only value, which is a whole number that may be stored in the smallest type that holds it.
    fn number(mut self) -> Result<u32, Problem> {
        let value = match self.rest.next()? {
            Some((UINT8 | INT8, &[a])) => Some(u32::from(a)),
            Some((UINT16 | INT16, &[a, b])) => Some(u32::from(u16::from_le_bytes([a, b]))),
            Some((UINT32 | INT32, &[a, b, c, d])) => Some(u32::from_le_bytes([a, b, c, d])),
            Some((DOUBLE, &[a, b, c, d, e, f, g, h])) => {
                let value = f64::from_le_bytes([a, b, c, d, e, f, g, h]);
                Some(value as u32).filter(|&whole| f64::from(whole) == value)
            }
            _ => None,
        };
        value.ok_or_else(|| "a synset without a number".to_owned())
    }

    fn text(mut self) -> Result<String, Problem> {
        match self.rest.next()? {
            Some((INT8 | UINT8 | UTF8, bytes)) => Ok(text(bytes)),
            Some((UINT16, bytes)) => {
                let units = bytes
                    .chunks_exact(2)
                    .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
                Ok(String::from_utf16_lossy(&units.collect::<Vec<_>>()))
            }
            _ => Err("a synset without a WNID".to_owned()),
        }
    }
}

/// Text up to the first zero byte.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

#[cfg(test)]
mod tests;
