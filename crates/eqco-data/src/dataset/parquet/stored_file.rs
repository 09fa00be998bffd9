//! Reading at positions of a file, never more than it has.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Why something of a file cannot be had. Whoever knows for what it was read makes a [`DataError`](crate::DataError) of it.
#[derive(Debug)]
pub(super) enum Damage {
    /// The operating system refused.
    Io(io::Error),
    /// The content is not what the format says.
    Format(String),
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Damage::Io(error)
    }
}

/// A [`Damage`] of the content.
pub(super) fn damaged<T>(what: impl Into<String>) -> Result<T, Damage> {
    Err(Damage::Format(what.into()))
}

/// A file by its path and length. It is opened for each image: a data set can have more files than a process may hold.
#[derive(Debug)]
pub(super) struct StoredFile {
    pub(super) path: PathBuf,
    /// Bytes.
    pub(super) size: u64,
}

impl StoredFile {
    pub(super) fn find(path: &Path) -> Result<Self, Damage> {
        let about = path.metadata()?;
        // Opening a pipe would wait for its other end.
        if !about.is_file() {
            return damaged("a folder or a device");
        }
        Ok(Self {
            path: path.to_path_buf(),
            size: about.len(),
        })
    }

    pub(super) fn open(&self) -> Result<OpenFile<'_>, Damage> {
        Ok(OpenFile {
            about: self,
            file: File::open(&self.path)?,
        })
    }
}

/// A [`StoredFile`] that is open. Threads can share it, since it has no position.
pub(super) struct OpenFile<'a> {
    pub(super) about: &'a StoredFile,
    file: File,
}

impl OpenFile<'_> {
    /// Exactly `count` bytes from `offset` on. Nothing is allocated for bytes that the file does not have.
    pub(super) fn read(&self, offset: u64, count: usize) -> Result<Vec<u8>, Damage> {
        let end = offset.checked_add(count as u64);
        if end.is_none_or(|end| end > self.about.size) {
            let size = self.about.size;
            return damaged(format!(
                "{count} bytes at {offset}, in a file of {size} bytes"
            ));
        }
        let mut bytes = vec![0; count];
        self.fill(&mut bytes, offset)?;
        Ok(bytes)
    }

    #[cfg(unix)]
    fn fill(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, bytes, offset)
    }

    #[cfg(windows)]
    fn fill(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = std::os::windows::fs::FileExt::seek_read(&self.file, bytes, offset)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes = &mut bytes[count..];
            offset += count as u64;
        }
        Ok(())
    }
}
