//! The file that a step which is not finite leaves behind: everything that is needed to do it again.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::OnNonfinite;
use crate::checkpoints::steps_in;
use crate::config::TrainConfig;
use crate::loop_state::ImagesSeen;
use crate::metrics::COMMIT;
use crate::run_folder::{RunFolder, RunFolderError};

/// No dump is as large: a batch of a million images with long names would be half of it.
const MOST_BYTES: u64 = 256 << 20;

/// A step that was not finite.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump {
    /// [`Dump::FORMAT`].
    pub format: u32,
    /// Version and commit of the program.
    pub program: String,
    /// What became of the run.
    pub action: OnNonfinite,
    /// Steps done before it, over the whole run.
    pub step: u64,
    /// Its epoch, from 0.
    pub epoch: u64,
    /// Its batch within the epoch, from 0.
    pub batch: u64,
    /// Seed of everything random; with the step it is the key of negatives and of the order of keys, with the epoch that of
    /// views.
    pub seed: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Its loss.
    pub loss: Exact,
    /// The norm of all gradients, where they have been looked at.
    pub gradient_norm: Option<Exact>,
    /// The first parameter of the backward pass whose gradient was not finite.
    pub first_gradient: Option<String>,
    /// What the loss says about the batch; null stands for what is not finite.
    pub statistics: Value,
    /// The newest checkpoint before the step, within the run folder; none if the run had none.
    pub checkpoint: Option<String>,
    /// The preset that the configuration started from.
    pub preset: String,
    /// Threads of the kernels: with as many the step is the same to the bit.
    pub threads: usize,
    /// Processes that shared the batch.
    pub ranks: usize,
    /// Name of the data set.
    pub data_set: String,
    /// What tells its images from others.
    pub images: ImagesSeen,
    /// The images of the batch; with several ranks those of rank 0.
    pub indices: Vec<u32>,
    /// Where each of them lies.
    pub files: Vec<String>,
    /// The whole configuration.
    pub config: TrainConfig,
}

/// A number that may be not finite, readable and to the bit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Exact(pub f64);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Written {
    /// For people.
    value: String,
    bits: u64,
}

impl From<f64> for Exact {
    fn from(value: f64) -> Self {
        Self(value)
    }
}

impl From<Exact> for Written {
    fn from(exact: Exact) -> Self {
        Self {
            value: exact.0.to_string(),
            bits: exact.0.to_bits(),
        }
    }
}

impl From<Written> for Exact {
    fn from(written: Written) -> Self {
        Self(f64::from_bits(written.bits))
    }
}

/// The same bits; one NaN is as good as another.
impl PartialEq for Exact {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits() || (self.0.is_nan() && other.0.is_nan())
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a dump cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// The file cannot be read.
    #[error("{}: cannot be read; give the path of a nonfinite-step-*.json in a run folder", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is not a dump, or not one that this program knows.
    #[error(
        "{}: expected a dump of a step, format {}, found {found}; give the path of a nonfinite-step-*.json in a run folder",
        .path.display(),
        Dump::FORMAT
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// Several processes shared the batch.
    #[error(
        "{}: expected the step of one process, found one that {ranks} processes shared; no single process repeats the \
         rounding of their sums: look at the images and statistics in the file itself",
        .path.display()
    )]
    Ranks {
        /// The file.
        path: PathBuf,
        /// How many.
        ranks: usize,
    },
    /// The data set has other images now.
    #[error(
        "{}: expected {expected}, found {found}; the step can be done again with the images that it was done with alone",
        .path.display()
    )]
    Images {
        /// The file.
        path: PathBuf,
        /// What the step was done with.
        expected: String,
        /// What is there now.
        found: String,
    },
}

impl Dump {
    /// The layout of the file.
    pub const FORMAT: u32 = 1;

    pub(super) fn program() -> String {
        format!("{} ({COMMIT})", env!("CARGO_PKG_VERSION"))
    }

    /// The newest checkpoint of `folder` at or before `step`, within the folder.
    pub(super) fn checkpoint_before(folder: &RunFolder, step: u64) -> Option<String> {
        let steps = steps_in(&folder.checkpoints()).into_iter();
        let newest = steps.filter(|written| *written <= step).max()?;
        Self::checkpoint_of(folder, newest)
    }

    /// The checkpoint after `step` steps, within the folder.
    pub(super) fn checkpoint_of(folder: &RunFolder, step: u64) -> Option<String> {
        let path = folder.checkpoint(step);
        let within = path.strip_prefix(folder.path()).ok()?;
        Some(within.to_string_lossy().into_owned())
    }

    /// Writes it to `folder`, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &RunFolder) -> Result<PathBuf, RunFolderError> {
        folder.write_json(&format!("nonfinite-step-{:09}.json", self.step), self)
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`DumpError::Unreadable`], and [`DumpError::Other`] for any other file.
    pub fn read(path: &Path) -> Result<Self, DumpError> {
        let unreadable = |source| DumpError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let other = |found: String| DumpError::Other {
            path: path.to_owned(),
            found,
        };
        let bytes = fs::metadata(path).map_err(unreadable)?.len();
        if bytes > MOST_BYTES {
            return Err(other(format!("{bytes} bytes")));
        }
        let text = fs::read(path).map_err(unreadable)?;
        let value: Value =
            serde_json::from_slice(&text).map_err(|error| other(error.to_string()))?;
        match value.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(Self::FORMAT) => {}
            Some(format) => return Err(other(format!("format {format}"))),
            None => return Err(other("JSON without a format".to_owned())),
        }
        let mut dump = Self::deserialize(value).map_err(|error| other(error.to_string()))?;
        dump.config = dump.config.completed();
        Ok(dump)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_survive_json_to_the_bit() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.1 + 0.2, -0.0] {
            let text = serde_json::to_string(&Exact(value)).unwrap();
            let read: Exact = serde_json::from_str(&text).unwrap();
            assert_eq!(read.0.to_bits(), value.to_bits(), "{text}");
        }
        let text = serde_json::to_string(&Exact(f64::NAN)).unwrap();
        assert!(text.contains(r#""value":"NaN""#), "{text}");
        assert_ne!(Exact(1.0), Exact(1.0 + f64::EPSILON));
        assert_eq!(Exact(f64::NAN), Exact(-f64::NAN));
    }

    #[test]
    fn other_files_are_refused_with_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump.json");
        let refused = |content: &str| {
            fs::write(&path, content).unwrap();
            Dump::read(&path).unwrap_err().to_string()
        };
        assert!(refused("no JSON").contains("expected a dump of a step, format 1, found expected"));
        assert!(refused("[]").contains("found JSON without a format"));
        assert!(refused(r#"{"format": 9}"#).contains("found format 9"));
        assert!(refused(r#"{"format": 1}"#).contains("missing field"));
        let missing = Dump::read(&folder.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("cannot be read"), "{missing}");
    }
}
