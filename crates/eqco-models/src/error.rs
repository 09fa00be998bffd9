//! What can be wrong with the input of training and with a checkpoint.

use std::path::PathBuf;

/// Every way in which methods, optimisers, schedules, the key queue, the momentum update and checkpoints refuse their input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A number in a configuration, or a value that a schedule gave, lies outside its range.
    #[error("{name} must be {expected}, got {got}")]
    OutOfRange {
        /// The setting, by its key in the configuration.
        name: &'static str,
        /// The range, in words.
        expected: &'static str,
        /// The refused value.
        got: f64,
    },
    /// Two settings, each in its range, do not go together.
    #[error("{problem}")]
    Conflict {
        /// Which settings, their values and the rule that they break.
        problem: String,
    },
    /// The backward pass has not reached a trainable parameter.
    #[error(
        "parameter {parameter} has no gradient: every trainable parameter must take part in the loss; \
         run the backward pass of the whole encoder before the optimiser's step"
    )]
    MissingGradient {
        /// Its full name.
        parameter: String,
    },
    /// Two sets of parameters that must agree do not.
    #[error("parameters differ at position {position}: expected {expected}, found {found}")]
    ParameterMismatch {
        /// Index of the first difference, in declaration order.
        position: usize,
        /// The parameter that is needed there.
        expected: String,
        /// What stands there instead.
        found: String,
    },
    /// A tensor has another shape than the one it must have.
    #[error("{tensor}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// The shape that is needed.
        expected: Vec<usize>,
        /// The shape that came.
        found: Vec<usize>,
    },
    /// A saved state lacks a tensor or holds a value that no state can have.
    #[error("saved state, tensor {tensor}: expected {expected}, found {found}")]
    State {
        /// The tensor's full name.
        tensor: String,
        /// What is needed.
        expected: String,
        /// What the state holds.
        found: String,
    },
    /// A checkpoint cannot be used.
    #[error("checkpoint {}: expected {expected}, found {found}; {next}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What a usable checkpoint has.
        expected: String,
        /// What this file has.
        found: String,
        /// What to do about it.
        next: &'static str,
    },
    /// A checkpoint is of a release that came later.
    #[error(
        "checkpoint {}: expected format version {newest} or older, found version {found}; read it with the release that \
         wrote it, or a newer one",
        .path.display()
    )]
    CheckpointVersion {
        /// The file.
        path: PathBuf,
        /// The newest version that this build reads.
        newest: u64,
        /// The version of the file.
        found: u64,
    },
    /// The operating system refused to read or write a checkpoint.
    #[error("checkpoint {}: cannot {action}: {source}", .path.display())]
    CheckpointIo {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The loss refused its input.
    #[error(transparent)]
    Loss(#[from] eqco_core::LossError),
    /// Another process that trains the same encoder is gone, or out of step.
    #[error(transparent)]
    Group(#[from] crate::group::GroupError),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Lets `?` carry our errors out of functions that return candle's `Result`.
impl From<ModelError> for candle_core::Error {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Candle(error) => error,
            other => candle_core::Error::wrap(other),
        }
    }
}

/// `Ok` when `holds`, and otherwise the error that names the setting, its range and the refused value.
pub(crate) fn check_range(
    name: &'static str,
    expected: &'static str,
    got: f64,
    holds: bool,
) -> Result<(), ModelError> {
    if holds {
        Ok(())
    } else {
        Err(ModelError::OutOfRange {
            name,
            expected,
            got,
        })
    }
}
