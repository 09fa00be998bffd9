//! Writes packed files: complete or absent.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::format::{ENTRY_BYTES, Entry, HEADER_BYTES, Header, label_fits, part};
use super::names;
use crate::DataError;
use crate::dataset::Split;

/// A packed file ([the format](super::format)) while it is written.
///
/// Bytes go to `.NAME.partial` beside the file, which takes the name, and the place of an older file, when all is on the
/// disk. Dropped before that, the writer removes it; a process that is killed leaves it there, where the next one of the same
/// name begins anew. One process at a time may write to a path.
#[derive(Debug)]
pub struct PackWriter {
    path: PathBuf,
    partial: PathBuf,
    out: BufWriter<File>,
    source: String,
    class_names: Vec<String>,
    /// The entries of the training and the test part.
    indices: [Vec<u8>; 2],
    /// Bytes written.
    position: u64,
}

impl PackWriter {
    /// Begins a file at `path` for images of these classes, in the order of their labels; none if they are unlabelled.
    /// Results call the data set `source`.
    ///
    /// # Errors
    /// [`DataError::Unwritable`] if the folder does not exist, something else than a file is in the place, or the system
    /// refuses.
    pub fn create(path: &Path, source: &str, class_names: &[String]) -> Result<Self, DataError> {
        let unwritable = |error| DataError::unwritable(path, error);
        let Some(name) = path.file_name() else {
            return Err(unwritable(io::ErrorKind::InvalidFilename.into()));
        };
        // A device must not be renamed over: `/dev/null` would be gone.
        if path.exists() && !path.is_file() {
            return Err(unwritable(io::ErrorKind::IsADirectory.into()));
        }
        let mut partial = OsString::from(".");
        partial.push(name);
        partial.push(".partial");
        let partial = path.with_file_name(partial);
        let file = File::create(&partial).map_err(unwritable)?;
        let mut writer = Self {
            path: path.to_owned(),
            partial,
            out: BufWriter::with_capacity(1 << 20, file),
            source: source.to_owned(),
            class_names: class_names.to_vec(),
            indices: Default::default(),
            position: 0,
        };
        // Its place; what it says is known at the end.
        writer.push(&[0; HEADER_BYTES])?;
        Ok(writer)
    }

    /// Appends an image to a part: the bytes of a JPEG or PNG file, which are not looked at.
    ///
    /// # Errors
    /// [`DataError::InvalidSetting`] for a label that is no class's, or none among classes, and for more than 4 GiB;
    /// [`DataError::Unwritable`].
    pub fn add(&mut self, split: Split, label: Option<u32>, body: &[u8]) -> Result<(), DataError> {
        let classes = self.class_names.len();
        if !label_fits(label, classes) {
            let expected = format!("a label below {classes}, or none without classes");
            return Err(DataError::setting("label", expected, format!("{label:?}")));
        }
        let Ok(bytes) = u32::try_from(body.len()) else {
            let expected = format!("at most {} bytes", u32::MAX);
            return Err(DataError::setting("image", expected, body.len()));
        };
        let entry = Entry {
            offset: self.position,
            bytes,
            label,
            sum: crc32c::crc32c(body),
        };
        self.push(body)?;
        self.indices[part(split)].extend(entry.to_bytes());
        Ok(())
    }

    /// Writes names, index and header, brings all of it to the disk and puts the file in its place. Returns its length in
    /// bytes.
    ///
    /// # Errors
    /// [`DataError::Unwritable`]; an older file is untouched then.
    pub fn finish(mut self) -> Result<u64, DataError> {
        let names = names::to_bytes(&self.source, &self.class_names);
        let indices = std::mem::take(&mut self.indices);
        let names_offset = self.position;
        for bytes in [&names, &indices[0], &indices[1]] {
            self.push(bytes)?;
        }
        let header = Header {
            file_bytes: self.position,
            names_offset,
            names_bytes: names.len() as u64,
            names_sum: crc32c::crc32c(&names),
            counts: indices
                .each_ref()
                .map(|index| (index.len() / ENTRY_BYTES) as u64),
            index_sums: indices.each_ref().map(|index| crc32c::crc32c(index)),
        };
        self.publish(header)
            .map_err(|error| DataError::unwritable(&self.path, error))?;
        Ok(self.position)
    }

    fn publish(&mut self, header: Header) -> io::Result<()> {
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header.to_bytes())?;
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        // The rename itself is lost in a power cut unless the folder is synchronised; only Unix can open a folder for that.
        #[cfg(unix)]
        {
            let folder = self
                .path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.position += bytes.len() as u64;
        self.out
            .write_all(bytes)
            .map_err(|error| DataError::unwritable(&self.path, error))
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        // After a success the name is gone, and after a failure the error says more than a second one could.
        let _ = fs::remove_file(&self.partial);
    }
}
