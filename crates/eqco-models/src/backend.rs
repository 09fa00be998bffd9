//! Which family of kernels computes: the one place where it is chosen.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::onednn::{Onednn, OnednnError};
use crate::ops::lanes;
use crate::precision::Precision;

/// Families of training kernels, by the names that they have in configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendName {
    /// Rust alone.
    Portable,
    /// The oneDNN library.
    Onednn,
    /// CUDA kernels with cuDNN.
    Cuda,
}

/// A family that is ready to compute. Families differ in their convolutions alone.
#[derive(Clone, Debug, Default)]
pub enum Backend {
    /// Rust alone. In bf16 it reads and writes bf16 and computes in f32.
    #[default]
    Portable,
    /// oneDNN's convolutions; the portable Winograd kernels where they are quicker.
    Onednn(Arc<Onednn>),
}

/// Why a family cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// This build lacks the family.
    #[error("this build has no {0} kernels")]
    NotBuilt(&'static str),
    /// The library is missing or does not work here.
    #[error(transparent)]
    Onednn(#[from] OnednnError),
}

impl Backend {
    /// Makes a family ready for activations of this precision; never another one than the one asked for.
    ///
    /// # Errors
    /// When this build or this machine does not have it.
    pub fn open(name: BackendName, precision: Precision) -> Result<Self, BackendError> {
        match name {
            BackendName::Portable => Ok(Self::Portable),
            BackendName::Onednn => {
                let library = Onednn::open()?;
                library.check(precision)?;
                Ok(Self::Onednn(library))
            }
            BackendName::Cuda => Err(BackendError::NotBuilt("CUDA")),
        }
    }
}

/// The family with its version and the instruction set in use.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Portable => write!(f, "portable, {}", lanes::instruction_set()),
            Self::Onednn(library) => f.write_str(&library.describe()),
        }
    }
}
