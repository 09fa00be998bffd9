//! The safetensors format: the length of a JSON header, the header, then the tensors' bytes.
//!
//! Written here and not by the crate of that name, which wants a second copy of all tensors and puts metadata into an order
//! that differs from run to run.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::Source;
use crate::ImageRows;

/// Labels come first: safetensors asks for wide elements before narrow ones, so that all are aligned.
pub(super) fn write(out: &mut impl Write, rows: &ImageRows, source: &Source) -> io::Result<()> {
    let mut header = header(rows, source).to_string();
    // The data begin at a multiple of 8.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for &label in rows.labels.iter().flatten() {
        out.write_all(&i64::from(label).to_le_bytes())?;
    }
    rows.values
        .iter()
        .try_for_each(|value| out.write_all(&value.to_le_bytes()))
}

fn header(rows: &ImageRows, source: &Source) -> Value {
    let mut header = Map::new();
    let metadata = source
        .entries()
        .map(|(key, value)| (key.to_owned(), json!(value)));
    header.insert("__metadata__".into(), Map::from_iter(metadata).into());
    let mut offset = 0;
    let mut add = |name: &str, dtype: &str, shape: &[usize], width: usize| {
        let end = offset + shape.iter().product::<usize>() * width;
        let info = json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]});
        header.insert(name.to_owned(), info);
        offset = end;
    };
    if let Some(labels) = &rows.labels {
        add("labels", "I64", &[labels.len()], 8);
    }
    add(rows.output.name(), "F32", &[rows.count(), rows.dim], 4);
    header.into()
}
