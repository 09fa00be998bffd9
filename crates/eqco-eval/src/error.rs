//! What can be wrong with an evaluation.

use std::io;
use std::path::PathBuf;

use eqco_data::DataError;
use eqco_models::backend::BackendError;
use eqco_models::error::ModelError;

/// An error of this crate: what was expected, what was found and where.
///
/// The text says what is wrong; [`EvalError::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Features without a single row or without a single dimension.
    #[error("{origin}: expected at least one row and one dimension, got {rows} rows of {dim}")]
    Empty {
        /// Which features.
        origin: String,
        /// Rows found.
        rows: usize,
        /// Dimensions found.
        dim: usize,
    },
    /// The number of values is not the number of labels times the number of dimensions.
    #[error("{origin}: expected {rows} labels x {dim} dimensions, got {values} values")]
    Length {
        /// Which features.
        origin: String,
        /// Number of labels.
        rows: usize,
        /// Dimensions of a row.
        dim: usize,
        /// Number of values.
        values: usize,
    },
    /// A feature is infinite or not a number.
    #[error("{origin}: expected finite features, got {value} in row {row}, dimension {column}")]
    NotFinite {
        /// Which features.
        origin: String,
        /// Row of the first such value.
        row: usize,
        /// Dimension of the first such value.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A label does not name a class.
    #[error("{origin}: expected labels below {class_count}, got {label} in row {row}")]
    Label {
        /// Which features.
        origin: String,
        /// Row of the first such label.
        row: usize,
        /// The label.
        label: u32,
        /// Number of classes.
        class_count: usize,
    },
    /// The images have no labels, so no accuracy can be measured.
    #[error("{origin}: the images have no labels")]
    Unlabelled {
        /// Which data set or features.
        origin: String,
    },
    /// Training and test features do not belong together.
    #[error("{quantity}: the training part has {train}, the test part {test}")]
    Mismatch {
        /// What differs.
        quantity: &'static str,
        /// Value of the training part.
        train: usize,
        /// Value of the test part.
        test: usize,
    },
    /// Training and test part name a class differently, so that a label means two things.
    #[error("class {label} is `{train}` in the training part and `{test}` in the test part")]
    ClassNames {
        /// The first label with two names.
        label: usize,
        /// Its name in the training part.
        train: String,
        /// Its name in the test part.
        test: String,
    },
    /// Two representations that are to be compared were made from different images.
    #[error("expected representations of the same images in the same order, got {a} and {b}")]
    DifferentImages {
        /// One of them.
        a: String,
        /// The other one.
        b: String,
    },
    /// A setting is outside its range.
    #[error("{setting}: expected {expected}, got {got}")]
    InvalidSetting {
        /// Name of the setting, as in the configuration.
        setting: &'static str,
        /// The allowed values.
        expected: String,
        /// The value given.
        got: String,
    },
    /// Every point of the linear probe's grid ended with weights that are not finite.
    #[error("the linear probe diverged at every learning rate of {learning_rates:?}")]
    Diverged {
        /// The learning rates that were tried.
        learning_rates: Vec<f64>,
    },
    /// The encoder's tensors differ before and after the evaluation.
    #[error("the encoder changed during the evaluation: SHA-256 {before} before, {after} after")]
    EncoderChanged {
        /// Digest before the first batch, hexadecimal.
        before: String,
        /// Digest after the last batch, hexadecimal.
        after: String,
    },
    /// The folder of a run holds no checkpoint.
    #[error("{}: expected a checkpoint (*.safetensors) in `checkpoints`, found none", path.display())]
    NoCheckpoint {
        /// The folder that was searched.
        path: PathBuf,
    },
    /// The system gives no thread.
    #[error("a thread cannot be started: {reason}")]
    Thread {
        /// What the system says.
        reason: String,
    },
    /// Supervised training has lost its way.
    #[error(
        "training diverged: the loss of step {step} is {loss} at learning rate {learning_rate}"
    )]
    TrainingDiverged {
        /// The step, from 0.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its learning rate.
        learning_rate: f64,
    },
    /// A result cannot be put where it is wanted.
    #[error("{}: expected {expected}, found {found}", path.display())]
    OutputPlace {
        /// The file or folder to be written.
        path: PathBuf,
        /// What would do.
        expected: String,
        /// What is there.
        found: String,
        /// What to do about it.
        next: &'static str,
    },
    /// The operating system refused to write a result; an older file of that name is untouched.
    #[error("cannot write {}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// The reason it gave.
        source: io::Error,
    },
    /// The data set cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device that was asked for, or its kernels, cannot be used.
    #[error("`device`: {reason}")]
    Device {
        /// Why not.
        reason: BackendError,
    },
    /// The encoder cannot be loaded or run.
    #[error("the encoder failed")]
    Model(#[from] candle_core::Error),
}

impl From<ModelError> for EvalError {
    fn from(error: ModelError) -> Self {
        EvalError::Model(error.into())
    }
}

impl EvalError {
    /// What the user can do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            EvalError::Unlabelled { .. } => {
                "accuracy needs classes: give a folder with one sub-folder per class, or IDX files \
                 with their labels"
            }
            EvalError::NotFinite { .. } => {
                "features that are not finite usually come from a diverged pre-training: look at \
                 the loss in metrics.jsonl and try a lower learning rate"
            }
            EvalError::Diverged { .. } => "add lower values to the learning rates",
            EvalError::EncoderChanged { .. } => {
                "the figures cannot be trusted: this is a defect of the program, please report it"
            }
            EvalError::NoCheckpoint { .. } => {
                "give a checkpoint file, or the folder of a run that has written one"
            }
            EvalError::Mismatch { .. } | EvalError::ClassNames { .. } => {
                "training and test part must come from the same data set and the same encoder"
            }
            EvalError::TrainingDiverged { .. } => "give a lower --lr",
            EvalError::Device { .. } => "leave --device away to compute on the CPU",
            EvalError::OutputPlace { next, .. } => next,
            EvalError::Unwritable { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "the disk is full: free some space, or choose another disk"
                }
                _ => "choose a place that you may write to",
            },
            EvalError::Data(error) => return error.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// A setting outside its range.
    pub(crate) fn setting(
        setting: &'static str,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        EvalError::InvalidSetting {
            setting,
            expected: expected.into(),
            got: got.to_string(),
        }
    }
}
