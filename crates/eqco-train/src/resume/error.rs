//! Why a run cannot go on.

use std::path::PathBuf;

/// What is in the way of `--resume`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// Nothing is there.
    #[error("{} holds no run to go on with", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// The run was stopped before its first checkpoint.
    #[error("the run {} has no checkpoint yet", path.display())]
    NoCheckpoint {
        /// The run folder.
        path: PathBuf,
    },
    /// There are files, and all of them are damaged.
    #[error("none of the {} checkpoints in {} can be read: {}", problems.len(), folder.display(), problems.join("; "))]
    NoneSound {
        /// The folder of the checkpoints.
        folder: PathBuf,
        /// What is wrong with each, the newest first.
        problems: Vec<String>,
    },
    /// The checkpoint is sound, but holds no run.
    #[error("{}: expected the state of a run, found {found}", path.display())]
    NoState {
        /// The checkpoint.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// A tensor is missing, too much, or another one than the configuration asks for.
    #[error("{}, tensor {tensor}: expected {expected}, found {found}", path.display())]
    Tensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// Element type and shape that the run has.
        expected: String,
        /// Those of the checkpoint.
        found: String,
    },
    /// A setting that must stay is another one.
    #[error("`{key}` is {before} in the run and {now} here, and may not change while it trains")]
    Changed {
        /// The dotted key, or what else must stay.
        key: String,
        /// In the checkpoint.
        before: String,
        /// In this command.
        now: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// `--resume auto` without a folder.
    #[error("--resume auto: expected --out FOLDER, found none")]
    NoFolder,
    /// `--resume RUN` with another folder.
    #[error("--resume {}: expected no --out, or the same one, found --out {}", run.display(), out.display())]
    OtherFolder {
        /// The run.
        run: PathBuf,
        /// The other folder.
        out: PathBuf,
    },
}

impl ResumeError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoRun { .. } => {
                "give the folder of a run, which has config.toml and checkpoints/ in it; with --out FOLDER --resume auto a \
                 run is begun where there is none"
            }
            Self::NoCheckpoint { .. } => {
                "with --out FOLDER --resume auto it begins again in the same folder; give the settings as for a new run"
            }
            Self::NoneSound { .. } => {
                "copy one of them again if it is whole elsewhere; to begin anew, choose another --out or remove them"
            }
            Self::NoState { .. } => {
                "`eqco-eval` reads it; to train from its settings, give the run's config.toml to --config with another --out"
            }
            Self::Tensor { .. } => {
                "the file was changed, or is of a version with other networks: use an earlier checkpoint, or that version"
            }
            Self::Changed { hint, .. } => hint,
            Self::NoFolder => {
                "it looks for checkpoints in the folder of --out, and begins a run there if there are none"
            }
            Self::OtherFolder { .. } => {
                "the run goes on in its own folder: leave --out away, or copy the folder first"
            }
        }
    }
}
