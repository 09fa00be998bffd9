//! One process a run folder: an open file that the system locks, and that says who has it.
//!
//! The system gives the lock back when its owner ends, however it ends, so that a lock is never in the way of nobody. The
//! file stays, empty after an orderly end; what a killed owner has left in it is news for the next one.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process;

use super::RunFolderError;

const LOCK: &str = "lock";

/// The right to write to a run folder, for as long as this lives.
#[derive(Debug)]
pub struct RunLock {
    file: File,
}

impl RunLock {
    /// Takes the lock of the folder `root`, which must exist. Also tells whom it was taken over from: an owner that has ended
    /// without giving it back.
    ///
    /// # Errors
    /// [`RunFolderError::Locked`] with the owner while another process has it, otherwise what the system says.
    pub fn take(root: &Path) -> Result<(Self, Option<String>), RunFolderError> {
        let path = root.join(LOCK);
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = opened.map_err(|source| RunFolderError::writing(&path, source))?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                let owner = owner(&path).unwrap_or_else(|| "a process that is starting".to_owned());
                return Err(RunFolderError::Locked { path, owner });
            }
            Err(TryLockError::Error(error)) => tracing::warn!(
                "{}: this file system cannot lock ({error}), so that nothing keeps a second process out of the run folder",
                path.display()
            ),
        }
        let left_behind = owner(&path);
        let lock = Self { file };
        lock.write(&this_process())
            .map_err(|source| RunFolderError::writing(&path, source))?;
        Ok((lock, left_behind))
    }

    fn write(&self, owner: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        (&self.file).write_all(owner.as_bytes())
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // An owner that is named here later has been killed; a file that cannot be emptied says no worse than that.
        let _ = self.file.set_len(0);
    }
}

/// The lock file of a run folder.
pub fn lock_path(root: &Path) -> PathBuf {
    root.join(LOCK)
}

/// Whom the file names; what is no text or too long to be a name is nobody's.
fn owner(path: &Path) -> Option<String> {
    const MOST_BYTES: u64 = 400;
    let is_short = fs::metadata(path).is_ok_and(|about| about.len() <= MOST_BYTES);
    let text = is_short.then(|| fs::read_to_string(path).ok()).flatten()?;
    let name = text.trim();
    (!name.is_empty() && !name.contains(char::is_control)).then(|| name.to_owned())
}

/// This process, for people on other machines.
pub(crate) fn this_process() -> String {
    format!("process {} on {}", process::id(), host())
}

#[cfg(unix)]
fn host() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the buffer is as long as the call is told, and its last byte stays zero.
    let status = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(0);
    match String::from_utf8_lossy(&name[..end]) {
        name if status == 0 && !name.is_empty() => name.into_owned(),
        _ => "this machine".to_owned(),
    }
}

#[cfg(not(unix))]
fn host() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "this machine".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_learns_who_has_the_folder_and_gets_it_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, before) = RunLock::take(folder.path()).unwrap();
        assert_eq!(before, None);
        // A second open file is to the system what a second process is.
        let error = RunLock::take(folder.path()).unwrap_err();
        let expected = format!(" is in use by process {} on {}", process::id(), host());
        assert!(error.to_string().ends_with(&expected), "{error}");
        assert!(error.hint().contains("wait"), "{}", error.hint());
        drop(lock);
        assert_eq!(RunLock::take(folder.path()).unwrap().1, None);
    }

    #[test]
    fn an_owner_that_was_killed_is_named_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = lock_path(folder.path());
        fs::write(&path, "process 4242 on elsewhere").unwrap();
        let (_lock, before) = RunLock::take(folder.path()).unwrap();
        assert_eq!(before.as_deref(), Some("process 4242 on elsewhere"));
        assert_eq!(fs::read_to_string(&path).unwrap(), this_process());
    }

    #[test]
    fn what_is_no_name_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let long = vec![b'a'; 500];
        for content in [&b"\xff\xfe"[..], b"a\x1b[2Jb", &long, b"\n"] {
            fs::write(lock_path(folder.path()), content).unwrap();
            assert_eq!(RunLock::take(folder.path()).unwrap().1, None);
        }
    }
}
