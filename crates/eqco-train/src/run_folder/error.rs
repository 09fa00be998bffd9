//! What can be wrong with a run folder.

use std::io;
use std::path::{Path, PathBuf};

/// What of `path`, or of the folders that it says it lies in, is something other than a folder.
pub(super) fn file_on_the_way(path: &Path) -> Option<PathBuf> {
    let existing = path.ancestors().find(|part| part.exists())?;
    (!existing.is_dir()).then(|| existing.to_owned())
}

/// What can be wrong with a run folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunFolderError {
    /// The folder belongs to another run.
    #[error("{} already holds a run", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// Another process works in the folder.
    #[error("{} is in use by {owner}", path.parent().unwrap_or(path).display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who has it.
        owner: String,
    },
    /// The path is a file.
    #[error("{} is a file, expected a folder or a name that is free", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("the disk is full: cannot write {}", path.display())]
    DiskFull {
        /// The file that could not be written.
        path: PathBuf,
    },
    /// The operating system refused for another reason.
    #[error("cannot write {}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// The reason it gave.
        source: io::Error,
    },
}

impl RunFolderError {
    pub(super) fn writing(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::NotADirectory => Self::NotAFolder {
                path: file_on_the_way(&path).unwrap_or(path),
            },
            _ => Self::Unwritable { path, source },
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Occupied { .. } => {
                "choose another --out, or leave it away to get a fresh folder under runs/; `--resume FOLDER` goes on with \
                 the run that is there"
            }
            Self::Locked { .. } => {
                "wait for that process, or stop it with Ctrl-C or `kill PROCESS`: it writes a checkpoint first"
            }
            Self::NotAFolder { .. } => {
                "give another folder; without --out, a run gets a fresh one under runs/"
            }
            Self::DiskFull { .. } => {
                "free some space, then `--resume FOLDER` goes on; what was written before is whole"
            }
            Self::Unwritable { .. } => "choose a folder that you may write to with --out",
        }
        .to_owned()
    }
}
