//! Event files as TensorBoard reads them: scalars over steps.
//!
//! The format is a sequence of records (length, checksum, content, checksum), each holding one protocol buffer `Event`
//! (tensorflow/core/util/event.proto, summary.proto). Of those we need five fields, which are written here; the crates
//! that do it bring a protocol-buffer compiler or an unfinished client along.

use std::fs::File;
use std::io::{self, Write};

/// Tells readers which version of the format follows.
const FILE_VERSION: &str = "brain.Event:2";

/// A file of events, written record by record.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// Begins the events in `file`, which must be empty. `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(file: File, wall_time: f64) -> io::Result<Self> {
        let mut events = Self { file };
        let mut event = header(wall_time, 0);
        bytes(&mut event, 3, FILE_VERSION.as_bytes());
        events.write_record(&event)?;
        Ok(events)
    }

    /// Adds the values of some tags at one step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, wall_time: f64, step: u64, scalars: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &entry);
        }
        let mut event = header(wall_time, step);
        bytes(&mut event, 5, &summary);
        self.write_record(&event)
    }

    fn write_record(&mut self, content: &[u8]) -> io::Result<()> {
        // One call a record: a reader never sees half of one unless the disk is full.
        let length = (content.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_checksum(&length));
        record.extend(content);
        record.extend(masked_checksum(content));
        self.file.write_all(&record)
    }
}

/// Wall time and step of an event.
fn header(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(wall_time.to_le_bytes());
    // A field with its default is left out.
    if step > 0 {
        event.push(2 << 3);
        varint(&mut event, step);
    }
    event
}

/// A field of bytes, with its number and length.
fn bytes(target: &mut Vec<u8>, field: u8, content: &[u8]) {
    target.push(field << 3 | 2);
    varint(target, content.len() as u64);
    target.extend(content);
}

/// Seven bits a byte, the lowest first.
fn varint(target: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        target.push(value as u8 | 0x80);
        value >>= 7;
    }
    target.push(value as u8);
}

/// CRC-32C, rotated and shifted as the format wants it.
fn masked_checksum(content: &[u8]) -> [u8; 4] {
    let checksum = crc32c::crc32c(content);
    checksum
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
        .to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_reference_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut events = EventFile::new(File::create(&path).unwrap(), 1.5).unwrap();
        events
            .add(2.5, 300, &[("loss/loss", 0.5), ("b", -2.0)])
            .unwrap();
        let hex: String = fs::read(&path)
            .unwrap()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        // Written by the Python package tensorboard 2.20, tensorboard.summary.writer.record_writer.RecordWriter, from
        // event_pb2.Event(wall_time=1.5, step=0, file_version="brain.Event:2") and
        // Event(wall_time=2.5, step=300, summary=Summary(value=[...])).
        assert_eq!(hex, REFERENCE.concat());
    }

    const REFERENCE: [&str; 2] = [
        "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c",
        "2a00000000000000ae8d91f509000000000000044010ac022a1c0a100a096c6f73732f6c6f7373150000003f0a080a016215000000c0a4b811d8",
    ];

    #[test]
    fn numbers_of_several_bytes() {
        let mut target = Vec::new();
        for value in [0, 127, 128, 300, u64::MAX] {
            varint(&mut target, value);
        }
        assert_eq!(target[..6], [0, 127, 0x80, 1, 0xac, 2]);
        assert_eq!(target.len(), 6 + 10);
    }
}
