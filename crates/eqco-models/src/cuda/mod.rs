//! The CUDA family: where its kernels go, and how large their grids are.

#[cfg(any(test, feature = "cuda"))]
mod candidate;
mod columns;
mod config;
mod elements;
#[cfg(feature = "cuda")]
mod libraries;
#[cfg(not(feature = "cuda"))]
#[path = "no_libraries.rs"]
mod libraries;
mod many;
mod matrix;

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Result};
use eqco_core::cuda::{CudaError, Kernels, Launch, Queue};

pub(crate) use self::columns::Columns;
pub use self::config::CudaConfig;
pub(crate) use self::elements::{a_warp_each, across, by_type, vector_of};
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
    /// The tables used last.
    tables: Mutex<Vec<Arc<Many>>>,
}

/// The optimiser's and the momentum encoder's, of two runs in one process.
const TABLES: usize = 4;

impl Cuda {
    /// The family on a GPU.
    ///
    /// # Errors
    /// In a build without CUDA, and for another device.
    pub fn open(device: &Device, config: CudaConfig) -> std::result::Result<Self, CudaError> {
        let queue = Queue::of(device)?;
        let libraries = Some(Libraries::open(device, config)?);
        Ok(Self {
            queue,
            libraries,
            tables: Mutex::default(),
        })
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
            tables: Mutex::default(),
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

    /// The table of these arrays on `device`: the one made before, while they are where they were.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub(crate) fn table(&self, rows: Vec<Arrays>, device: &Device) -> Result<Arc<Many>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tables.iter().find(|table| table.is_of(&rows)) {
            return Ok(Arc::clone(known));
        }
        let table = Arc::new(Many::new(rows, device)?);
        tables.insert(0, Arc::clone(&table));
        tables.truncate(TABLES);
        Ok(table)
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
        match &self.libraries {
            Some(libraries) => write!(f, "CUDA, {libraries}"),
            None => f.write_str("CUDA kernels, emulated"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::Cuda;
    use crate::backend::Backend;

    /// The portable family, and CUDA's kernels in the emulator where this build has it.
    pub(crate) fn families() -> Vec<Backend> {
        let emulated = Cuda::emulated();
        if let Err(error) = &emulated {
            eprintln!("NOT RUN with CUDA kernels: {error}");
        }
        let emulated = emulated.map(|cuda| Backend::Cuda(Arc::new(cuda)));
        std::iter::once(Backend::Portable).chain(emulated).collect()
    }
}
