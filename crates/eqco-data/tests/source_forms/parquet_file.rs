//! A Parquet file as plain as they get: columns `image.bytes` and `label`, one row group, nothing compressed.
//!
//! Format: github.com/apache/parquet-format; Thrift's compact protocol.

use super::Labelled;

/// Images in a page.
const PAGE_ROWS: usize = 16;

const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

// Types of columns, and of how often they are there.
const LONG: i64 = 2;
const BYTES: i64 = 6;
const REQUIRED: i64 = 0;

/// The bytes of a file with these images, and names of the classes in the metadata of Hugging Face.
pub fn of(classes: &[&str], images: &[Labelled]) -> Vec<u8> {
    let mut file = b"PAR1".to_vec();
    let files = images.iter().map(|(_, bytes)| {
        let length = (bytes.len() as u32).to_le_bytes();
        [&length[..], bytes].concat()
    });
    let labels = images
        .iter()
        .map(|image| i64::from(image.0).to_le_bytes().to_vec());
    let columns = [
        Column::write(&mut file, BYTES, &["image", "bytes"], files),
        Column::write(&mut file, LONG, &["label"], labels),
    ];
    let footer = footer(classes, images.len() as i64, &columns);
    let length = footer.len() as u32;
    file.extend(footer);
    file.extend(length.to_le_bytes());
    file.extend(b"PAR1");
    file
}

/// A column that has been written.
struct Column {
    kind: i64,
    path: &'static [&'static str],
    rows: i64,
    start: i64,
    bytes: i64,
}

impl Column {
    fn write(
        file: &mut Vec<u8>,
        kind: i64,
        path: &'static [&'static str],
        values: impl Iterator<Item = Vec<u8>>,
    ) -> Self {
        let start = file.len();
        let values: Vec<_> = values.collect();
        for page in values.chunks(PAGE_ROWS) {
            let content = page.concat();
            file.extend(page_header(page.len() as i64, content.len() as i64));
            file.extend(content);
        }
        Self {
            kind,
            path,
            rows: values.len() as i64,
            start: start as i64,
            bytes: (file.len() - start) as i64,
        }
    }

    /// As a row group lists it.
    fn chunk(&self) -> Vec<u8> {
        let path = self.path.iter().map(|name| binary(name.as_bytes()));
        let about = Fields::default()
            .number(1, I32, self.kind)
            .list(2, I32, [varint(0)])
            .list(3, BINARY, path)
            .number(4, I32, 0)
            .number(5, I64, self.rows)
            .number(6, I64, self.bytes)
            .number(7, I64, self.bytes)
            .number(9, I64, self.start);
        Fields::default()
            .number(2, I64, self.start)
            .content(3, STRUCT, &about.end())
            .end()
    }
}

fn page_header(rows: i64, bytes: i64) -> Vec<u8> {
    // Plain values; levels as runs, of which there are none.
    let about = Fields::default()
        .number(1, I32, rows)
        .number(2, I32, 0)
        .number(3, I32, 3)
        .number(4, I32, 3);
    Fields::default()
        .number(1, I32, 0)
        .number(2, I32, bytes)
        .number(3, I32, bytes)
        .content(5, STRUCT, &about.end())
        .end()
}

fn footer(classes: &[&str], rows: i64, columns: &[Column]) -> Vec<u8> {
    let node = |name: &str, children: i64| {
        let fields = Fields::default().number(3, I32, REQUIRED);
        let fields = fields.content(4, BINARY, &binary(name.as_bytes()));
        fields.number(5, I32, children).end()
    };
    let leaf = |name: &str, kind: i64| {
        let fields = Fields::default()
            .number(1, I32, kind)
            .number(3, I32, REQUIRED);
        fields.content(4, BINARY, &binary(name.as_bytes())).end()
    };
    let schema = [
        node("schema", 2),
        node("image", 1),
        leaf("bytes", BYTES),
        leaf("label", LONG),
    ];
    let names: Vec<String> = classes.iter().map(|class| format!("{class:?}")).collect();
    let features = format!(
        "{{\"info\": {{\"features\": {{\"image\": {{\"_type\": \"Image\"}}, \"label\": {{\"_type\": \"ClassLabel\", \
         \"names\": [{}]}}}}}}}}",
        names.join(", ")
    );
    let entry = Fields::default()
        .content(1, BINARY, &binary(b"huggingface"))
        .content(2, BINARY, &binary(features.as_bytes()));
    let group = Fields::default()
        .list(1, STRUCT, columns.iter().map(Column::chunk))
        .number(2, I64, columns.iter().map(|column| column.bytes).sum())
        .number(3, I64, rows);
    Fields::default()
        .number(1, I32, 1)
        .list(2, STRUCT, schema)
        .number(3, I64, rows)
        .list(4, STRUCT, [group.end()])
        .list(5, STRUCT, [entry.end()])
        .end()
}

/// The fields of a struct, whose numbers go up by less than 16.
#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    last: u8,
}

impl Fields {
    fn content(mut self, number: u8, kind: u8, content: &[u8]) -> Self {
        self.bytes.push((number - self.last) << 4 | kind);
        self.bytes.extend(content);
        self.last = number;
        self
    }

    fn number(self, number: u8, kind: u8, value: i64) -> Self {
        // The sign goes into the lowest bit.
        let folded = (value << 1 ^ value >> 63) as u64;
        self.content(number, kind, &varint(folded))
    }

    fn list(self, number: u8, kind: u8, elements: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let elements: Vec<_> = elements.into_iter().collect();
        let mut content = vec![0xf0 | kind];
        content.extend(varint(elements.len() as u64));
        content.extend(elements.concat());
        self.content(number, LIST, &content)
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    [varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
