//! Which family of kernels computes: the one place where it is chosen.

use std::fmt;
use std::sync::Arc;

use candle_core::Device;
use eqco_core::cuda::CudaError;
use serde::{Deserialize, Serialize};

use crate::cuda::{Cuda, CudaConfig, Libraries};
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

/// A family that is ready to compute. Those on the CPU differ in their convolutions alone.
#[derive(Clone, Debug, Default)]
pub enum Backend {
    /// Rust alone. In bf16 it reads and writes bf16 and computes in f32.
    #[default]
    Portable,
    /// oneDNN's convolutions; the portable Winograd kernels where they are quicker.
    Onednn(Arc<Onednn>),
    /// Our CUDA kernels, with cuDNN's convolutions.
    Cuda(Arc<Cuda>),
}

/// Why a family cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The family has no kernels for tensors on this device.
    #[error("{family} kernels do not run on {device}")]
    OtherDevice {
        /// The family.
        family: &'static str,
        /// Where the tensors are.
        device: String,
    },
    /// There is no CUDA in this build, or none on this machine.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The library is missing or does not work here.
    #[error(transparent)]
    Onednn(#[from] OnednnError),
}

impl Backend {
    /// Makes a family ready for activations of this precision on `device`; never another one than the one asked for. `cuda` is
    /// for the CUDA family alone.
    ///
    /// # Errors
    /// When this build or this machine does not have it, or it does not run on the device.
    pub fn open(
        name: BackendName,
        precision: Precision,
        device: &Device,
        cuda: CudaConfig,
    ) -> Result<Self, BackendError> {
        let on_cpu_alone = |family| match device {
            Device::Cpu => Ok(()),
            other => Err(BackendError::OtherDevice {
                family,
                device: format!("{:?}", other.location()),
            }),
        };
        match name {
            BackendName::Portable => on_cpu_alone("portable").map(|()| Self::Portable),
            BackendName::Onednn => {
                on_cpu_alone("oneDNN")?;
                let library = Onednn::open()?;
                library.check(precision)?;
                Ok(Self::Onednn(library))
            }
            BackendName::Cuda => Ok(Self::Cuda(Arc::new(Cuda::open(device, cuda)?))),
        }
    }

    /// The name that it has in configurations and results.
    pub fn name(&self) -> BackendName {
        match self {
            Self::Portable => BackendName::Portable,
            Self::Onednn(_) => BackendName::Onednn,
            Self::Cuda(_) => BackendName::Cuda,
        }
    }

    /// The CUDA family, if it is that.
    pub(crate) fn cuda(&self) -> Option<&Cuda> {
        match self {
            Self::Cuda(cuda) => Some(cuda),
            Self::Portable | Self::Onednn(_) => None,
        }
    }

    /// NVIDIA's libraries, on a GPU.
    pub(crate) fn libraries(&self) -> Option<&Libraries> {
        self.cuda()?.libraries()
    }
}

/// The family with its version and the instruction set in use.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Portable => write!(f, "portable, {}", lanes::instruction_set()),
            Self::Onednn(library) => f.write_str(&library.describe()),
            Self::Cuda(cuda) => write!(f, "{cuda}"),
        }
    }
}
