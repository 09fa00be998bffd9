//! NumPy's format, version 1.0 (NEP 1): a line of Python that describes the array, then its bytes.

use std::io::{self, Write};

/// Writes `values` as f32 `[rows, dim]`.
pub(super) fn write_matrix(out: &mut impl Write, values: &[f32], dim: usize) -> io::Result<()> {
    out.write_all(&header("<f4", &format!("({}, {dim})", values.len() / dim)))?;
    values
        .iter()
        .try_for_each(|value| out.write_all(&value.to_le_bytes()))
}

/// Writes `labels` as i64 `[count]`.
pub(super) fn write_labels(out: &mut impl Write, labels: &[u32]) -> io::Result<()> {
    out.write_all(&header("<i8", &format!("({},)", labels.len())))?;
    labels
        .iter()
        .try_for_each(|&label| out.write_all(&i64::from(label).to_le_bytes()))
}

/// Magic, version, length and description, padded so that the data begin at a multiple of 64.
fn header(descr: &str, shape: &str) -> Vec<u8> {
    const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let before = MAGIC.len() + 2;
    let length = (before + text.len() + 1).next_multiple_of(64) - before;
    text.push_str(&" ".repeat(length - text.len() - 1));
    text.push('\n');
    // Two numbers of 20 digits fit into the first multiple of 64 but one: far below 65,536.
    let mut bytes = MAGIC.to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(text.bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_numpys() {
        let mut bytes = Vec::new();
        write_matrix(&mut bytes, &[1.0, -2.0, 0.5, 4.0, 8.0, 16.0], 2).unwrap();
        // numpy.save of the same array, byte for byte.
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }";
        let mut expected = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        expected.extend(text.bytes());
        expected.resize(127, b' ');
        expected.push(b'\n');
        for value in [1.0f32, -2.0, 0.5, 4.0, 8.0, 16.0] {
            expected.extend(value.to_le_bytes());
        }
        assert_eq!(bytes, expected);

        let mut bytes = Vec::new();
        write_labels(&mut bytes, &[7, u32::MAX]).unwrap();
        assert!(
            bytes[10..].starts_with(b"{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }")
        );
        assert_eq!(
            bytes[128..],
            [7, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0]
        );
    }
}
