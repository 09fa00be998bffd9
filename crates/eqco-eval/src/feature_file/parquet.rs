//! A table in Apache Parquet's format (github.com/apache/parquet-format): plain encoding, not compressed, one page a column
//! and row group.
//!
//! Written here because the `parquet` crate brings tens of crates with it, one of them under a licence that this project does
//! not allow, for a table of four columns. Representations do not compress well anyway.

use std::io::{self, Write};

use super::Source;
use super::thrift::{Struct, varint};
use crate::{EncoderOutput, ImageRows};

const MAGIC: &[u8; 4] = b"PAR1";

/// Numbers of a representation column in one row group: 64 MiB, far below the 2 GiB that a page can have.
const GROUP_VALUES: usize = 16 << 20;

// Values of the format's enumerations.
const INT32: i32 = 1;
const FLOAT: i32 = 4;
const BYTE_ARRAY: i32 = 6;
const REQUIRED: i32 = 0;
const OPTIONAL: i32 = 1;
const REPEATED: i32 = 2;
const UTF8: i32 = 0;
const AS_LIST: i32 = 3;
const PLAIN: i32 = 0;
const RLE: i32 = 3;

/// Writes the columns `image` (string), `label` (int32 or null), `class` (string or null) and `representation` or `embedding`
/// (list of float), one row an image.
pub(super) fn write(out: &mut impl Write, rows: &ImageRows, source: &Source) -> io::Result<()> {
    write_groups(out, rows, source, (GROUP_VALUES / rows.dim).max(1))
}

fn write_groups(
    out: &mut impl Write,
    rows: &ImageRows,
    source: &Source,
    rows_of_group: usize,
) -> io::Result<()> {
    out.write_all(MAGIC)?;
    let mut offset = MAGIC.len();
    let mut groups = Vec::new();
    let mut first = 0;
    while first < rows.count() {
        let range = first..rows.count().min(first + rows_of_group);
        first = range.end;
        let (mut chunks, begin) = (Vec::new(), offset);
        for column in columns(rows, range.clone()) {
            let (bytes, chunk) = column.chunk(offset);
            out.write_all(&bytes)?;
            offset += bytes.len();
            chunks.push(chunk);
        }
        let group = Struct::default().structs(1, chunks);
        groups.push(
            group
                .i64(2, (offset - begin) as i64)
                .i64(3, range.len() as i64),
        );
    }
    let entries = source.entries().into_iter();
    let entries = entries.map(|(key, value)| Struct::default().text(1, key).text(2, value));
    let footer = Struct::default()
        .i32(1, 1)
        .structs(2, schema(rows.output))
        .i64(3, rows.count() as i64)
        .structs(4, groups)
        .structs(5, entries.collect())
        .text(6, "eqco-eval version 1")
        .finish();
    out.write_all(&footer)?;
    out.write_all(&(footer.len() as u32).to_le_bytes())?;
    out.write_all(MAGIC)
}

/// The name of the last column.
fn column_name(output: EncoderOutput) -> &'static str {
    match output {
        EncoderOutput::Representation => "representation",
        EncoderOutput::Embedding => "embedding",
    }
}

/// The tree of columns, parents before their children. Logical types stand beside the older converted ones.
fn schema(output: EncoderOutput) -> Vec<Struct> {
    let leaf = |kind, repetition, name| {
        let element = Struct::default().i32(1, kind).i32(3, repetition);
        element.text(4, name)
    };
    let text = |repetition, name| {
        let logical = Struct::default().inner(1, Struct::default());
        leaf(BYTE_ARRAY, repetition, name)
            .i32(6, UTF8)
            .inner(10, logical)
    };
    let logical_list = Struct::default().inner(3, Struct::default());
    vec![
        Struct::default().text(4, "schema").i32(5, 4),
        text(REQUIRED, "image"),
        leaf(INT32, OPTIONAL, "label"),
        text(OPTIONAL, "class"),
        Struct::default()
            .i32(3, REQUIRED)
            .text(4, column_name(output))
            .i32(5, 1)
            .i32(6, AS_LIST)
            .inner(10, logical_list),
        Struct::default().i32(3, REPEATED).text(4, "list").i32(5, 1),
        leaf(FLOAT, REQUIRED, "element"),
    ]
}

/// One column of one row group.
struct Column {
    kind: i32,
    path: Vec<&'static str>,
    /// Values, nulls included.
    count: usize,
    /// Repetition and definition levels with their lengths before them, where the column has such levels.
    levels: Vec<u8>,
    /// Values that are not null, plainly.
    values: Vec<u8>,
}

fn columns(rows: &ImageRows, range: std::ops::Range<usize>) -> [Column; 4] {
    let count = range.len();
    let mut images = Vec::new();
    let mut classes = Vec::new();
    for row in range.clone() {
        push_text(&mut images, &rows.images[row]);
        if let Some(class) = rows.class(row) {
            push_text(&mut classes, class);
        }
    }
    let labels = rows.labels.iter().flat_map(|labels| &labels[range.clone()]);
    let labels = labels.flat_map(|label| label.to_le_bytes()).collect();
    let values = &rows.values[range.start * rows.dim..range.end * rows.dim];
    // A column is without any null or all null.
    let defined = levels(&[(count, u8::from(rows.labels.is_some()))]);
    let mut repeated = Vec::new();
    for _ in 0..count {
        repeated.extend([(1, 0), (rows.dim - 1, 1)]);
    }
    let column = |kind, path, count, levels, values| Column {
        kind,
        path,
        count,
        levels,
        values,
    };
    [
        column(BYTE_ARRAY, vec!["image"], count, Vec::new(), images),
        column(INT32, vec!["label"], count, defined.clone(), labels),
        column(BYTE_ARRAY, vec!["class"], count, defined, classes),
        column(
            FLOAT,
            vec![column_name(rows.output), "list", "element"],
            values.len(),
            [levels(&repeated), levels(&[(values.len(), 1)])].concat(),
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        ),
    ]
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.bytes());
}

/// Levels of one bit as runs (how often, which), with their length in bytes before them.
fn levels(runs: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &(count, level) in runs.iter().filter(|(count, _)| *count > 0) {
        varint(&mut bytes, (count as u64) << 1);
        bytes.push(level);
    }
    [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat()
}

impl Column {
    /// The page with its header, which begins at `offset` of the file, and its entry in the footer.
    fn chunk(self, offset: usize) -> (Vec<u8>, Struct) {
        let size = self.levels.len() + self.values.len();
        let about_data = Struct::default()
            .i32(1, self.count as i32)
            .i32(2, PLAIN)
            .i32(3, RLE)
            .i32(4, RLE);
        let mut bytes = Struct::default()
            .i32(1, 0)
            .i32(2, size as i32)
            .i32(3, size as i32)
            .inner(5, about_data)
            .finish();
        bytes.extend(self.levels);
        bytes.extend(self.values);
        let metadata = Struct::default()
            .i32(1, self.kind)
            .i32s(2, &[PLAIN, RLE])
            .texts(3, &self.path)
            .i32(4, 0)
            .i64(5, self.count as i64)
            .i64(6, bytes.len() as i64)
            .i64(7, bytes.len() as i64)
            .i64(9, offset as i64);
        let entry = Struct::default().i64(2, offset as i64).inner(3, metadata);
        (bytes, entry)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sha2::{Digest, Sha256};

    use super::super::tests::three_rows;
    use super::*;

    fn digest_of(is_labelled: bool, rows_of_group: usize) -> String {
        let rows = three_rows(is_labelled);
        let mut bytes = Vec::new();
        let source = Source::new(&rows, Path::new("runs/x.safetensors"));
        write_groups(&mut bytes, &rows, &source, rows_of_group).unwrap();
        let digest = Sha256::digest(&bytes);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// pyarrow 26.0.1 reads these very files as three rows of `image`, `label`, `class` and `representation` with the values of
    /// `three_rows`, labels and classes null in the second, and with the metadata; the third has two row groups.
    #[test]
    fn the_bytes_are_those_that_pyarrow_has_read() {
        let labelled = "da27b1e2be23e10c07b92c1579d3bb37cd3da660b81c48b9e1a01a30b3fdc50b";
        assert_eq!(digest_of(true, 1000), labelled);
        let unlabelled = "4d88ae2e5c6540e80160d1fa992f41eaaf032c67f136d79b66080afcd480269d";
        assert_eq!(digest_of(false, 1000), unlabelled);
        let two_groups = "09f38310c5701a3fe60677167176bacb2912cf66c21d5670f23ba80d66352fa3";
        assert_eq!(digest_of(true, 2), two_groups);
    }

    #[test]
    fn levels_are_runs_with_their_length_before_them() {
        assert_eq!(levels(&[(3, 1)]), [2, 0, 0, 0, 6, 1]);
        // 200 takes two bytes of seven bits; a run of nothing is left out.
        let runs = levels(&[(1, 0), (0, 1), (200, 1)]);
        assert_eq!(runs, [5, 0, 0, 0, 2, 0, 0x90, 3, 1]);
    }
}
