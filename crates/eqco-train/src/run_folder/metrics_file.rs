//! `metrics.jsonl`: whole lines only, each with the system before the next one begins.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::RunFolderError;

/// The file, open for appending.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    /// Whole lines in the file, and their bytes.
    lines: u64,
    length: u64,
}

impl MetricsFile {
    /// Opens the file behind its last whole line.
    pub(super) fn open(path: PathBuf) -> Result<Self, RunFolderError> {
        Self::cut(path, u64::MAX)
    }

    /// Opens the file behind its first `lines` lines, or behind its last whole one where there are fewer, and cuts off what
    /// follows: one system call, so that a process killed meanwhile leaves the old length or the new one.
    pub(super) fn cut(path: PathBuf, lines: u64) -> Result<Self, RunFolderError> {
        let failed = |source| RunFolderError::writing(&path, source);
        let file = File::options()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        // A pipe or a device has no lines to count, and may give bytes without end.
        let (lines, length) = match about.is_file() {
            true => whole_lines(&file, lines).map_err(failed)?,
            false => (0, 0),
        };
        if about.is_file() && about.len() > length {
            file.set_len(length)
                .and_then(|()| file.sync_all())
                .map_err(failed)?;
        }
        Ok(Self {
            path,
            file,
            lines,
            length,
        })
    }

    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Appends one record as one line. Numbers that are not finite become `null`.
    ///
    /// # Errors
    /// When the file cannot be written; what was there before is there still, and nothing behind it.
    pub fn write(&mut self, record: &impl Serialize) -> Result<(), RunFolderError> {
        let mut line = serde_json::to_vec(record)
            .map_err(|error| RunFolderError::writing(&self.path, error.into()))?;
        line.push(b'\n');
        // One call a line: nothing is buffered here, and a reader never sees half a record of ours.
        if let Err(source) = self.file.write_all(&line) {
            // Unless the disk became full in the middle of it. The error says what is wrong; a second one would hide it.
            let _ = self.file.set_len(self.length);
            return Err(RunFolderError::writing(&self.path, source));
        }
        self.lines += 1;
        self.length += line.len() as u64;
        Ok(())
    }

    /// The open file, for whoever brings it to the disk.
    pub(crate) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Counts whole lines from the beginning, at most `most`, and their bytes.
fn whole_lines(file: &File, most: u64) -> io::Result<(u64, u64)> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let (mut lines, mut length, mut begun) = (0, 0, 0);
    while lines < most {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        // A buffer at a time, for a line that never ends would fill the memory.
        let (used, is_whole) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(place) => (place + 1, true),
            None => (buffer.len(), false),
        };
        reader.consume(used);
        begun += used as u64;
        if is_whole {
            lines += 1;
            length += begun;
            begun = 0;
        }
    }
    Ok((lines, length))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn lines_behind_the_wanted_ones_and_half_lines_are_cut_off() {
        for (lines, kept) in [
            (0, ""),
            (1, "1\n"),
            (2, "1\n22\n"),
            (3, "1\n22\n"),
            (9, "1\n22\n"),
        ] {
            let (_folder, path) = file("1\n22\n{\"half");
            let mut metrics = MetricsFile::cut(path.clone(), lines).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), kept);
            assert_eq!(metrics.lines(), kept.lines().count() as u64);
            metrics.write(&7).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{kept}7\n"));
            assert_eq!(metrics.lines(), kept.lines().count() as u64 + 1);
        }
    }

    #[test]
    fn lines_longer_than_a_buffer_are_counted_once() {
        let long = "x".repeat(200_000);
        let (_folder, path) = file(&format!("{long}\n{long}\n{long}"));
        let metrics = MetricsFile::cut(path.clone(), 2).unwrap();
        assert_eq!((metrics.lines(), metrics.length), (2, 400_002));
        assert_eq!(fs::metadata(&path).unwrap().len(), 400_002);
    }
}
