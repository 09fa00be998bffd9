//! Event files as TensorBoard reads them: scalars over steps.
//!
//! The format is a sequence of records (length, checksum, content, checksum), each holding one protocol buffer `Event`
//! (tensorflow/core/util/event.proto, summary.proto). Of those we need five fields, which are written here; the crates
//! that do it bring a protocol-buffer compiler or an unfinished client along.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

/// Tells readers which version of the format follows.
const FILE_VERSION: &str = "brain.Event:2";

/// A file of events, written record by record.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    /// Whole records in the file, and their bytes.
    records: u64,
    length: u64,
}

/// Bytes of a record beside its content: length, its checksum, that of the content.
const AROUND_CONTENT: u64 = 16;

impl EventFile {
    /// Begins the events in `file`, which must be empty. `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(file: File, wall_time: f64) -> io::Result<Self> {
        let mut events = Self {
            file,
            records: 0,
            length: 0,
        };
        events.begin(wall_time)?;
        Ok(events)
    }

    /// Opens the events at `path` behind their first `records` records, or the last whole one where there are fewer, and cuts
    /// off what follows in one system call.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn cut(path: &Path, records: u64, wall_time: f64) -> io::Result<Self> {
        let file = File::options().read(true).append(true).open(path)?;
        let (records, length) = whole_records(&file, records)?;
        if file.metadata()?.len() > length {
            file.set_len(length)?;
            file.sync_all()?;
        }
        let mut events = Self {
            file,
            records,
            length,
        };
        if records == 0 {
            events.begin(wall_time)?;
        }
        Ok(events)
    }

    /// Records so far, the one that begins the file included.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The open file, for whoever brings it to the disk.
    pub(crate) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn begin(&mut self, wall_time: f64) -> io::Result<()> {
        let mut event = header(wall_time, 0);
        bytes(&mut event, 3, FILE_VERSION.as_bytes());
        self.write_record(&event)
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
        let written = self.file.write_all(&record);
        if written.is_ok() {
            self.records += 1;
            self.length += record.len() as u64;
        } else {
            // Half a record would be the last that TensorBoard reads. The error says what is wrong.
            let _ = self.file.set_len(self.length);
        }
        written
    }
}

/// Counts whole records from the beginning, at most `most`, and their bytes. A length that its checksum does not confirm, or
/// that is longer than the rest of the file, ends them.
fn whole_records(file: &File, most: u64) -> io::Result<(u64, u64)> {
    let end = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let (mut records, mut length) = (0, 0);
    while records < most && end - length >= AROUND_CONTENT {
        let mut start = [0; 12];
        reader.read_exact(&mut start)?;
        let (content, checksum) = start.split_at(8);
        if masked_checksum(content) != checksum {
            break;
        }
        let content = content
            .iter()
            .rev()
            .fold(0, |n, byte| n << 8 | u64::from(*byte));
        if content > end - length - AROUND_CONTENT {
            break;
        }
        reader.seek_relative(content as i64 + 4)?;
        records += 1;
        length += AROUND_CONTENT + content;
    }
    Ok((records, length))
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

    #[test]
    fn cutting_keeps_whole_records_and_goes_on_behind_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut events = EventFile::new(File::create(&path).unwrap(), 1.5).unwrap();
        let mut lengths = vec![0, fs::metadata(&path).unwrap().len()];
        for step in 0..4 {
            events.add(2.5, step, &[("loss/loss", 0.5)]).unwrap();
            lengths.push(fs::metadata(&path).unwrap().len());
        }
        let whole = fs::read(&path).unwrap();
        for wanted in 1..=5 {
            fs::write(&path, &whole).unwrap();
            let mut events = EventFile::cut(&path, wanted, 9.0).unwrap();
            assert_eq!(events.records(), wanted);
            (wanted - 1..4).for_each(|step| events.add(2.5, step, &[("loss/loss", 0.5)]).unwrap());
            assert_eq!(fs::read(&path).unwrap(), whole, "{wanted}");
        }
        // Cut off anywhere, and with a length that claims too much: what is whole stays.
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let events = EventFile::cut(&path, 9, 1.5).unwrap();
            let kept = lengths
                .iter()
                .filter(|length| **length <= end as u64)
                .count()
                - 1;
            assert_eq!(events.records(), kept.max(1) as u64, "{end}");
        }
        let mut damaged = whole.clone();
        damaged[lengths[2] as usize + 3] = 0x7f;
        fs::write(&path, damaged).unwrap();
        assert_eq!(EventFile::cut(&path, 9, 1.5).unwrap().records(), 2);
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
