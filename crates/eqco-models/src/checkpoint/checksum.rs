//! CRC-32C over a whole file that holds the checksum itself: its digits count as zeros.

use std::io::{self, Write};

/// What stands in the place of the digits while the checksum is computed.
pub(super) const ZEROS: &str = "00000000";

/// Stands before the digits in the header: the beginning of a JSON text within a JSON text.
const BEFORE: &[u8] = br#","crc32c":""#;

/// Where the digits stand in a header.
pub(super) fn place(header: &[u8]) -> Option<usize> {
    let before: Vec<u8> = escaped(BEFORE);
    let found = header
        .windows(before.len() + ZEROS.len())
        .position(|window| window.starts_with(&before))?;
    Some(found + before.len())
}

/// As it stands inside of a JSON string.
fn escaped(text: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b'"' => vec![b'\\', b'"'],
        byte => vec![*byte],
    };
    text.iter().flat_map(escape).collect()
}

/// The checksum of a file whose digits stand at `place`, as digits.
pub(super) fn of_file(bytes: &[u8], place: usize) -> String {
    let (before, rest) = bytes.split_at(place);
    let crc = crc32c::crc32c(before);
    let crc = crc32c::crc32c_append(crc, ZEROS.as_bytes());
    digits(crc32c::crc32c_append(crc, &rest[ZEROS.len()..]))
}

fn digits(crc: u32) -> String {
    format!("{crc:08x}")
}

/// A writer that keeps the checksum of what passes through it.
pub(super) struct Checksummed<W> {
    inner: W,
    crc: u32,
}

impl<W: Write> Checksummed<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, crc: 0 }
    }

    /// What was written to, and the digits of the checksum.
    pub(super) fn finish(self) -> (W, Vec<u8>) {
        (self.inner, digits(self.crc).into_bytes())
    }
}

impl<W: Write> Write for Checksummed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
