//! What can be wrong with a sweep.

use std::io;
use std::path::PathBuf;

use crate::config::ConfigError;

/// An error of a sweep as a whole. A run that fails is none: the sweep goes on and says so at the end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// `--vary` without `KEY=A,B,C`.
    #[error("--vary {text}: expected KEY=A,B,C, {problem}")]
    Axis {
        /// What the user typed.
        text: String,
        /// What was found instead.
        problem: String,
    },
    /// One setting is varied twice.
    #[error("--vary: `{key}` stands there twice")]
    SameAxis {
        /// The key.
        key: String,
    },
    /// A combination is no valid configuration.
    #[error("the run {name} cannot be configured")]
    Point {
        /// The run.
        name: String,
        /// Why.
        source: ConfigError,
    },
    /// Two combinations would share a folder.
    #[error("two runs are called {name}")]
    SameName {
        /// The name.
        name: String,
    },
    /// The folder of a run holds one with other settings.
    #[error("{} holds another run: `{key}` is {there} there and {here} here", path.display())]
    OtherRun {
        /// The folder.
        path: PathBuf,
        /// The first key that differs.
        key: String,
        /// Its value in the folder.
        there: String,
        /// Its value in this sweep.
        here: String,
    },
    /// The folder of the sweep is that of a run.
    #[error("{} is the folder of a run, expected that of a sweep or a name that is free", path.display())]
    IsARun {
        /// The folder.
        path: PathBuf,
    },
    /// Another process runs the same sweep.
    #[error("another sweep is writing to {}", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The folder, or one above it, is a file.
    #[error("{} is a file or lies below one, expected a folder or a name that is free", path.display())]
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
    /// A file or folder cannot be written or read.
    #[error("cannot use {}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The reason the operating system gave.
        source: io::Error,
    },
}

impl SweepError {
    /// What the operating system says about `path`.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                Self::NotAFolder { path }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::File { path, source },
        }
    }

    /// What the user can do about it, where there is something to say beyond the error itself.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Axis { .. } => Some(
                "for example --vary negatives=4,16,64 --vary alpha=256,infonce,decoupled; names are those of the flags, or \
                 keys of `eqco-train show-config`"
                    .to_owned(),
            ),
            Self::Point { source, .. } => source.hint(),
            Self::SameName { .. } => Some("leave one of the equal values away".to_owned()),
            Self::OtherRun { .. } => Some("choose another --out, or the settings of that sweep".to_owned()),
            Self::Busy { .. } => Some("wait for it, or choose another --out".to_owned()),
            Self::SameAxis { .. } => Some("put all values behind one --vary".to_owned()),
            Self::DiskFull { .. } => Some("free some space; the same command goes on".to_owned()),
            Self::IsARun { .. } | Self::NotAFolder { .. } => Some("choose another --out".to_owned()),
            Self::File { .. } => Some("choose an --out that you may write to, on a disk with space".to_owned()),
        }
    }
}
