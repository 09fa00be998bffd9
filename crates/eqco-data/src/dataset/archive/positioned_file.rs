//! Files that many threads read at once, each where it likes.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use crate::DataError;

/// So many archives stay open; systems allow a process 1,024 files or fewer.
const MOST_OPEN: usize = 256;

/// By which a changed file is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Bytes.
    pub(crate) size: u64,
    /// Time of the last change, in nanoseconds since 1970; 0 where the system does not say.
    pub(crate) modified: u64,
}

impl Stamp {
    /// Of the file at `path`.
    pub(crate) fn of(path: &Path) -> Result<Self, DataError> {
        let metadata = path
            .metadata()
            .map_err(|error| DataError::io(path, error))?;
        Ok(Self::from(&metadata))
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok();
        let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            size: metadata.len(),
            modified: since.map_or(0, |since| since.as_nanos() as u64),
        }
    }
}

/// An open file without a position of its own, or one that is in memory.
#[derive(Debug)]
pub(crate) struct PositionedFile {
    path: PathBuf,
    stamp: Stamp,
    content: Content,
}

#[derive(Debug)]
enum Content {
    #[cfg(unix)]
    Disk(File),
    /// Where reading moves a position, one thread reads at a time.
    #[cfg(not(unix))]
    Disk(Mutex<File>),
    Memory(Vec<u8>),
}

impl PositionedFile {
    /// Opens a regular file.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let io_error = |error| DataError::io(path, error);
        // Looked at before it is opened: opening a pipe would wait for its other end.
        if !path.metadata().map_err(io_error)?.is_file() {
            return Err(DataError::archive(
                path,
                "a tar file",
                "a folder or a device",
            ));
        }
        let file = File::open(path).map_err(io_error)?;
        Ok(Self {
            path: path.to_path_buf(),
            stamp: Stamp::from(&file.metadata().map_err(io_error)?),
            #[cfg(unix)]
            content: Content::Disk(file),
            #[cfg(not(unix))]
            content: Content::Disk(Mutex::new(file)),
        })
    }

    /// What has been unpacked from the file at `path`, which is for errors.
    pub(crate) fn in_memory(path: &Path, bytes: Vec<u8>) -> Self {
        Self {
            path: path.to_path_buf(),
            stamp: Stamp {
                size: bytes.len() as u64,
                modified: 0,
            },
            content: Content::Memory(bytes),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// As it was when the file was opened.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Fills `bytes` from `offset` on.
    pub(crate) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), DataError> {
        let read = match &self.content {
            #[cfg(unix)]
            Content::Disk(file) => std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset),
            #[cfg(not(unix))]
            Content::Disk(file) => {
                use std::io::{Read, Seek, SeekFrom};
                let mut file = file.lock().unwrap_or_else(|e| e.into_inner());
                file.seek(SeekFrom::Start(offset))
                    .and_then(|_| file.read_exact(bytes))
            }
            Content::Memory(all) => usize::try_from(offset)
                .ok()
                .and_then(|offset| all.get(offset..)?.get(..bytes.len()))
                .map(|part| bytes.copy_from_slice(part))
                .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into()),
        };
        read.map_err(|error| DataError::io(&self.path, error))
    }

    /// `length` bytes from `offset` on; memory is taken only if the file has so many.
    pub(crate) fn bytes(&self, offset: u64, length: u32) -> Result<Vec<u8>, DataError> {
        let end = offset.checked_add(u64::from(length));
        if end.is_none_or(|end| end > self.stamp.size) {
            let expected = format!("{length} bytes from byte {offset} on");
            let found = format!("a file of {} bytes", self.stamp.size);
            return Err(DataError::archive(&self.path, expected, found));
        }
        let mut bytes = vec![0; length as usize];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// The file in a place of [`OpenFiles`] and its number.
type Place = Option<(usize, Arc<PositionedFile>)>;

/// Files that are opened when they are first read, so many of them at a time as a process may have.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    files: Vec<(PathBuf, Stamp)>,
    /// A file's place is its number modulo their count, so that up to `MOST_OPEN` files are opened once.
    places: Vec<Mutex<Place>>,
}

impl OpenFiles {
    pub(crate) fn new(files: Vec<(PathBuf, Stamp)>) -> Self {
        let places = files.len().min(MOST_OPEN);
        Self {
            files,
            places: (0..places).map(|_| Mutex::default()).collect(),
        }
    }

    pub(crate) fn path(&self, number: usize) -> &Path {
        &self.files[number].0
    }

    /// The file of this number, which must be what it was when it was indexed.
    pub(crate) fn get(&self, number: usize) -> Result<Arc<PositionedFile>, DataError> {
        let place = &self.places[number % self.places.len()];
        // What is in there is whole whenever the lock is free, even after a panic elsewhere.
        let mut place = place.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((_, file)) = place.as_ref().filter(|(held, _)| *held == number) {
            return Ok(Arc::clone(file));
        }
        let (path, stamp) = &self.files[number];
        let file = Arc::new(PositionedFile::open(path)?);
        if file.stamp() != *stamp {
            let expected = "the archive as it was when this data set was opened";
            return Err(DataError::archive(path, expected, "a changed file"));
        }
        *place = Some((number, Arc::clone(&file)));
        Ok(file)
    }
}
