//! Results on the disk: complete or absent.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use crate::EvalError;

/// A place for a file. Content goes to `.NAME.partial` beside it and is renamed when it is whole; dropped before that, it
/// leaves no trace, and an older file of the name is untouched.
#[derive(Debug)]
pub struct WholeFile {
    path: PathBuf,
    partial: PathBuf,
}

impl WholeFile {
    /// Makes sure that a file can be written at `path`, before the long work that leads to its content.
    ///
    /// # Errors
    /// [`EvalError::OutputPlace`] if the folder does not exist or something else than a file is in the place,
    /// [`EvalError::Unwritable`] if the system refuses.
    pub fn create(path: &Path) -> Result<Self, EvalError> {
        let misplaced = |expected: &str, found: &str, next| EvalError::OutputPlace {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
            next,
        };
        let Some(name) = path.file_name() else {
            let next = "add a file name to the path";
            return Err(misplaced("the path of a file", "none", next));
        };
        // A device must not be renamed over: `/dev/null` would be gone.
        if path.exists() && !path.is_file() {
            let next = "give the name of a file";
            let found = "a folder or a device";
            return Err(misplaced("a file or a free name", found, next));
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            let next = "create the folder first, or choose another one";
            return Err(misplaced(
                "a file in a folder that exists",
                "no such folder",
                next,
            ));
        }
        let mut partial = OsString::from(".");
        partial.push(name);
        partial.push(".partial");
        let partial = path.with_file_name(partial);
        let place = Self {
            path: path.to_owned(),
            partial,
        };
        match File::create(&place.partial) {
            Ok(_) => Ok(place),
            Err(source) => Err(place.unwritable(source)),
        }
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the content, brings it to the disk and puts it in its place.
    ///
    /// # Errors
    /// [`EvalError::Unwritable`] if `content` fails or the system refuses.
    pub fn write(
        mut self,
        content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), EvalError> {
        self.fill(content)?;
        self.publish()
    }

    /// Writes the content and brings it to the disk, still beside its place: files that belong together are filled, then
    /// published, so that a full disk leaves none of them. Content that is there already goes.
    ///
    /// # Errors
    /// Those of [`WholeFile::write`].
    pub fn fill(
        &mut self,
        content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), EvalError> {
        let written = || {
            let file = File::create(&self.partial)?;
            let mut writer = BufWriter::with_capacity(1 << 20, file);
            content(&mut writer)?;
            let file = writer
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?;
            file.sync_all()
        };
        written().map_err(|source| self.unwritable(source))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// [`EvalError::Unwritable`] if the system refuses.
    pub fn publish(self) -> Result<(), EvalError> {
        fs::rename(&self.partial, &self.path).map_err(|source| self.unwritable(source))
    }

    fn unwritable(&self, source: io::Error) -> EvalError {
        EvalError::Unwritable {
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        // After a success the name is gone, and after a failure the error says more than a second one could.
        let _ = fs::remove_file(&self.partial);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.bin");
        let file = WholeFile::create(&path).unwrap();
        assert!(!path.exists());
        file.write(|out| out.write_all(b"first")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");

        drop(WholeFile::create(&path).unwrap());
        let failing = WholeFile::create(&path).unwrap();
        let error = failing.write(|out| {
            out.write_all(b"half of the sec")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        let error = error.unwrap_err();
        assert!(error.to_string().starts_with("cannot write "), "{error}");
        assert!(error.hint().unwrap().starts_with("the disk is full"));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(folder.path()), ["result.bin"]);
    }

    #[test]
    fn places_that_cannot_hold_a_file_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| {
            let error = WholeFile::create(path).unwrap_err();
            assert!(error.hint().is_some(), "{error}");
            error.to_string()
        };
        assert!(refused(folder.path()).ends_with("found a folder or a device"));
        assert!(refused(&folder.path().join("absent/a.npy")).ends_with("found no such folder"));
        assert!(refused(Path::new("/")).contains("expected the path of a file"));
        #[cfg(unix)]
        assert!(refused(Path::new("/dev/null")).ends_with("found a folder or a device"));
        assert!(names(folder.path()).is_empty());
    }
}
