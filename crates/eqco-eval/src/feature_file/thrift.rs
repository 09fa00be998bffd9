//! As much of Thrift's compact protocol as Parquet's headers need.

const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// A struct in the making. Fields are added in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Struct {
    bytes: Vec<u8>,
    last_field: u8,
}

impl Struct {
    /// A 32-bit number, or a value of an enumeration.
    pub(super) fn i32(self, field: u8, value: i32) -> Self {
        self.field(field, I32, |bytes| zigzag(bytes, value.into()))
    }

    /// A 64-bit number.
    pub(super) fn i64(self, field: u8, value: i64) -> Self {
        self.field(field, I64, |bytes| zigzag(bytes, value))
    }

    /// A text.
    pub(super) fn text(self, field: u8, value: &str) -> Self {
        self.field(field, BINARY, |bytes| push_text(bytes, value))
    }

    /// A struct within.
    pub(super) fn inner(self, field: u8, value: Self) -> Self {
        self.field(field, STRUCT, |bytes| bytes.extend(value.finish()))
    }

    /// A list of structs.
    pub(super) fn structs(self, field: u8, values: Vec<Self>) -> Self {
        self.field(field, LIST, |bytes| {
            list_header(bytes, values.len(), STRUCT);
            values
                .into_iter()
                .for_each(|value| bytes.extend(value.finish()));
        })
    }

    /// A list of 32-bit numbers, or of values of an enumeration.
    pub(super) fn i32s(self, field: u8, values: &[i32]) -> Self {
        self.field(field, LIST, |bytes| {
            list_header(bytes, values.len(), I32);
            values.iter().for_each(|&value| zigzag(bytes, value.into()));
        })
    }

    /// A list of texts.
    pub(super) fn texts(self, field: u8, values: &[&str]) -> Self {
        self.field(field, LIST, |bytes| {
            list_header(bytes, values.len(), BINARY);
            values.iter().for_each(|value| push_text(bytes, value));
        })
    }

    /// All bytes, with the mark of the end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }

    /// Field numbers are written as the distance to the one before, which is below 16 throughout Parquet.
    fn field(mut self, field: u8, kind: u8, value: impl FnOnce(&mut Vec<u8>)) -> Self {
        self.bytes.push((field - self.last_field) << 4 | kind);
        self.last_field = field;
        value(&mut self.bytes);
        self
    }
}

/// Seven bits a byte, the lowest first.
pub(super) fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// The sign becomes the lowest bit, so that small negative numbers are short.
fn zigzag(bytes: &mut Vec<u8>, value: i64) {
    varint(bytes, (value << 1 ^ value >> 63) as u64);
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    varint(bytes, text.len() as u64);
    bytes.extend(text.bytes());
}

fn list_header(bytes: &mut Vec<u8>, len: usize, kind: u8) {
    if len < 15 {
        bytes.push((len as u8) << 4 | kind);
    } else {
        bytes.push(0xf0 | kind);
        varint(bytes, len as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_the_specification() {
        let of = |value| {
            let mut bytes = Vec::new();
            zigzag(&mut bytes, value);
            bytes
        };
        // The examples of Thrift's specification, and both ends.
        assert_eq!(
            (of(0), of(-1), of(1), of(-2)),
            (vec![0], vec![1], vec![2], vec![3])
        );
        assert_eq!(of(25_225), [0x92, 0x8a, 0x03]);
        assert_eq!(of(i64::MIN), [vec![0xff; 9], vec![1]].concat());
        let inner = Struct::default().text(2, "ab");
        let found = Struct::default()
            .i32(1, 3)
            .i64(4, -1)
            .inner(5, inner)
            .i32s(7, &[1, 2]);
        let expected = [
            0x15, 6, 0x36, 1, 0x1c, 0x28, 2, b'a', b'b', 0, 0x29, 0x25, 2, 4, 0,
        ];
        assert_eq!(found.finish(), expected);
        let long = Struct::default().texts(1, &[""; 15]).finish();
        assert_eq!(long[..3], [0x19, 0xf8, 15]);
    }
}
