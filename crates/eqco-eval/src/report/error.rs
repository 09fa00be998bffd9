//! What can be wrong with a report.

use std::io;
use std::path::PathBuf;

use crate::EvalError;

/// An error of [`report`](crate::report): what was expected, what was found and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Nothing at a path is a run.
    #[error("{}: expected the folder of a run or a folder that holds runs, found no metrics.jsonl", path.display())]
    NotARun {
        /// The path.
        path: PathBuf,
    },
    /// A path does not exist.
    #[error("{}: expected the folder of a run, found nothing at this path", path.display())]
    Absent {
        /// The path.
        path: PathBuf,
    },
    /// There are more runs than a page can show.
    #[error("expected 1 to {most} runs, found {found}")]
    TooMany {
        /// Runs found.
        found: usize,
        /// Runs that a page takes.
        most: usize,
    },
    /// A file of a run is not what `eqco-train` writes.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The pictures of the representation cannot be made.
    #[error(transparent)]
    Evaluation(#[from] EvalError),
}

impl ReportError {
    /// What the user can do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotARun { .. } | Self::Absent { .. } => {
                "give what eqco-train was given as --out, or a folder with such folders at most two levels below it"
            }
            Self::TooMany { .. } => "give the runs of one sweep at a time",
            Self::Malformed { .. } => {
                "the file was changed or comes from another program: leave this run out, or restore the file"
            }
            Self::Unwritable { .. } => "choose a file in a folder that you may write to with --out",
            Self::Evaluation(error) => return error.hint(),
            Self::Unreadable { .. } => return None,
        };
        Some(text.to_owned())
    }
}
