//! The CUDA family: where its kernels go, and how large their grids are.

mod columns;
mod elements;
#[cfg(feature = "cuda")]
mod libraries;
#[cfg(not(feature = "cuda"))]
#[path = "no_libraries.rs"]
mod libraries;
mod many;
mod matrix;

use candle_core::{Device, Result};
use eqco_core::cuda::{CudaError, Kernels, Launch, Queue};

pub(crate) use self::columns::Columns;
pub(crate) use self::elements::{across, by_type, vector_of};
pub(crate) use self::libraries::Libraries;
pub(crate) use self::many::{Arrays, Many};
pub(crate) use self::matrix::Matrix;

/// The kernels of this crate.
const KERNELS: Kernels = Kernels {
    name: "eqco-models",
    fatbin: include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")),
};

/// One GPU, or its emulation.
#[derive(Debug)]
pub struct Cuda {
    queue: Queue,
    /// `None` where kernels are emulated.
    libraries: Option<Libraries>,
}

impl Cuda {
    /// The family on a GPU.
    ///
    /// # Errors
    /// In a build without CUDA, and for another device.
    pub fn open(device: &Device) -> std::result::Result<Self, CudaError> {
        let queue = Queue::of(device)?;
        let libraries = Some(Libraries::open(device)?);
        Ok(Self { queue, libraries })
    }

    /// The family on the CPU, for tests: our kernels' own source, slowly, and the portable forms in place of NVIDIA's
    /// libraries (convolutions and matrix products). Tensors are on the CPU.
    ///
    /// # Errors
    /// In a build without the emulator.
    pub fn emulated() -> std::result::Result<Self, CudaError> {
        let queue = Queue::emulated()?;
        Ok(Self {
            queue,
            libraries: None,
        })
    }

    /// Where kernels go.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// NVIDIA's libraries; `None` where kernels are emulated.
    pub(crate) fn libraries(&self) -> Option<&Libraries> {
        self.libraries.as_ref()
    }

    /// Sends a kernel off.
    ///
    /// # Safety
    /// That of [`Queue::launch`].
    pub(crate) unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.queue.launch(KERNELS, launch)? };
        Ok(())
    }
}

impl std::fmt::Display for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.queue.is_emulated() {
            "CUDA kernels, emulated"
        } else {
            "CUDA"
        })
    }
}
