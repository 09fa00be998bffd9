//! What the end of a Parquet file says about it (github.com/apache/parquet-format).

use std::sync::Arc;

use super::stored_file::{Damage, OpenFile, damaged};
use super::thrift::{Fault, Kind, Reader};

const MAGIC: &[u8; 4] = b"PAR1";
const ENCRYPTED_MAGIC: &[u8; 4] = b"PARE";

/// The largest footer that is read (16 MiB; one of ImageNet's has some 30 KB).
const MOST_FOOTER_BYTES: u64 = 16 << 20;

/// More nodes of a schema, and more entries of metadata, than any table of images has. A node takes 50 times as much memory as
/// it may take bytes.
const MOST_NODES: usize = 1 << 16;

/// More row groups, or columns in one, than a footer of that size has.
const MOST_GROUPS: usize = 1 << 20;

/// Where Hugging Face's `datasets` says which column is what.
const FEATURES_KEY: &str = "huggingface";

/// The parts of a footer that a data set of images needs.
#[derive(Debug, Default)]
pub(super) struct Footer {
    /// The tree of columns, parents before their children.
    pub(super) schema: Vec<SchemaElement>,
    pub(super) groups: Vec<RowGroup>,
    /// The JSON under the key `huggingface`.
    pub(super) features: Option<String>,
}

/// A node of the schema.
#[derive(Debug, Default)]
pub(super) struct SchemaElement {
    /// Shared with the leaves below, for a name can be as long as the footer.
    pub(super) name: Arc<str>,
    /// The number of the type of a leaf.
    pub(super) physical: Option<i32>,
    pub(super) repetition: i32,
    pub(super) children: i32,
    /// Whether bytes are UTF-8.
    pub(super) is_text: bool,
}

/// Some rows of all columns.
#[derive(Debug, Default)]
pub(super) struct RowGroup {
    pub(super) rows: i64,
    /// In the order of the leaves of the schema.
    pub(super) columns: Vec<ColumnChunk>,
}

/// One column of a row group, as the footer describes it; nothing is checked yet.
#[derive(Debug, Default)]
pub(super) struct ColumnChunk {
    /// Whether it lies in another file.
    pub(super) is_elsewhere: bool,
    pub(super) encodings: Vec<i32>,
    pub(super) codec: i32,
    pub(super) values: i64,
    /// Bytes with and without compression, headers included.
    pub(super) stored_bytes: i64,
    pub(super) plain_bytes: i64,
    pub(super) data_offset: i64,
    pub(super) dictionary_offset: Option<i64>,
}

impl Footer {
    /// Reads the footer of a file, whose length and magic are checked before anything is allocated.
    pub(super) fn read(file: &OpenFile<'_>) -> Result<Self, Damage> {
        let size = file.about.size;
        if size < 12 {
            return damaged(format!("{size} bytes, too few for a footer"));
        }
        let tail = file.read(size - 8, 8)?;
        let (length, magic) = tail.split_at(4);
        if magic == ENCRYPTED_MAGIC {
            return damaged("an encrypted footer");
        }
        if magic != MAGIC {
            return damaged("no PAR1 at the end: another format, or not all of the file");
        }
        let length = length
            .iter()
            .rev()
            .fold(0, |sum, &b| sum << 8 | u64::from(b));
        if length > size - 12 || length > MOST_FOOTER_BYTES {
            return damaged(format!(
                "a footer of {length} bytes, in a file of {size} bytes"
            ));
        }
        let bytes = file.read(size - 8 - length, length as usize)?;
        file_metadata(&mut Reader::new(&bytes)).map_err(|fault| {
            Damage::Format(match fault {
                Fault::Ended => "a footer that ends too early".to_owned(),
                Fault::Malformed(what) => format!("a footer with {what}"),
            })
        })
    }
}

fn file_metadata(reader: &mut Reader<'_>) -> Result<Footer, Fault> {
    let (mut footer, mut last) = (Footer::default(), 0);
    while let Some((number, kind)) = reader.field(&mut last)? {
        match (number, kind) {
            (2, Kind::List) => footer.schema = reader.structs(MOST_NODES, schema_element)?,
            (4, Kind::List) => footer.groups = reader.structs(MOST_GROUPS, row_group)?,
            (5, Kind::List) => {
                let entries = reader.structs(MOST_NODES, key_and_value)?;
                let mut entries = entries.into_iter();
                let features = entries.find(|(key, _)| *key == FEATURES_KEY.as_bytes());
                footer.features =
                    features.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
            }
            _ => reader.skip(kind)?,
        }
    }
    Ok(footer)
}

fn key_and_value<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), Fault> {
    let (mut entry, mut last): ((&[u8], &[u8]), _) = ((&[], &[]), 0);
    while let Some((number, kind)) = reader.field(&mut last)? {
        match (number, kind) {
            (1, Kind::Binary) => entry.0 = reader.binary()?,
            (2, Kind::Binary) => entry.1 = reader.binary()?,
            _ => reader.skip(kind)?,
        }
    }
    Ok(entry)
}

fn schema_element(reader: &mut Reader<'_>) -> Result<SchemaElement, Fault> {
    let (mut element, mut last) = (SchemaElement::default(), 0);
    while let Some((number, kind)) = reader.field(&mut last)? {
        match (number, kind) {
            (1, Kind::I32) => element.physical = Some(reader.i32()?),
            (3, Kind::I32) => element.repetition = reader.i32()?,
            (4, Kind::Binary) => element.name = reader.text()?.into(),
            (5, Kind::I32) => element.children = reader.i32()?,
            // UTF8 is number 0 of the older annotations.
            (6, Kind::I32) => element.is_text |= reader.i32()? == 0,
            (10, Kind::Struct) => {
                let mut last = 0;
                while let Some((number, kind)) = reader.field(&mut last)? {
                    element.is_text |= number == 1;
                    reader.skip(kind)?;
                }
            }
            _ => reader.skip(kind)?,
        }
    }
    // What is read takes more memory than the file does; such checks keep it a small multiple.
    if element.physical.is_none() && element.children < 1 {
        return Err(Fault::Malformed("a column without a type"));
    }
    Ok(element)
}

fn row_group(reader: &mut Reader<'_>) -> Result<RowGroup, Fault> {
    let (mut group, mut last) = (RowGroup::default(), 0);
    while let Some((number, kind)) = reader.field(&mut last)? {
        match (number, kind) {
            (1, Kind::List) => group.columns = reader.structs(MOST_GROUPS, column_chunk)?,
            (3, Kind::I64) => group.rows = reader.i64()?,
            _ => reader.skip(kind)?,
        }
    }
    if group.columns.is_empty() {
        return Err(Fault::Malformed("a row group without columns"));
    }
    Ok(group)
}

fn column_chunk(reader: &mut Reader<'_>) -> Result<ColumnChunk, Fault> {
    let (mut chunk, mut last, mut is_elsewhere) = (ColumnChunk::default(), 0, false);
    while let Some((number, kind)) = reader.field(&mut last)? {
        match (number, kind) {
            (1, Kind::Binary) => is_elsewhere = !reader.binary()?.is_empty(),
            (3, Kind::Struct) => chunk = column_metadata(reader)?,
            _ => reader.skip(kind)?,
        }
    }
    if chunk.encodings.is_empty() {
        return Err(Fault::Malformed("a column without encodings"));
    }
    Ok(ColumnChunk {
        is_elsewhere,
        ..chunk
    })
}

fn column_metadata(reader: &mut Reader<'_>) -> Result<ColumnChunk, Fault> {
    let (mut chunk, mut last) = (ColumnChunk::default(), 0);
    while let Some((number, kind)) = reader.field(&mut last)? {
        match (number, kind) {
            (2, Kind::List) => {
                let (element, count) = reader.list()?;
                if count > 0 && element != Kind::I32 {
                    return Err(Fault::Malformed("encodings that are not numbers"));
                }
                for _ in 0..count {
                    chunk.encodings.push(reader.i32()?);
                }
            }
            (4, Kind::I32) => chunk.codec = reader.i32()?,
            (5, Kind::I64) => chunk.values = reader.i64()?,
            (6, Kind::I64) => chunk.plain_bytes = reader.i64()?,
            (7, Kind::I64) => chunk.stored_bytes = reader.i64()?,
            (9, Kind::I64) => chunk.data_offset = reader.i64()?,
            (11, Kind::I64) => chunk.dictionary_offset = Some(reader.i64()?),
            _ => reader.skip(kind)?,
        }
    }
    Ok(chunk)
}
