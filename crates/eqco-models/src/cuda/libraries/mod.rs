//! NVIDIA's libraries on a GPU: cuDNN's convolutions, cuBLASLt's matrix products.

mod algorithm;
mod convolution;
mod descriptors;
mod owned;
mod product;

use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::cudnn;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut};
use candle_core::{Device, Error, Result};
use eqco_core::cuda::CudaError;

use self::convolution::Convolutions;
use self::product::Products;
use super::CudaConfig;

/// Handles, what has been chosen for each shape, and the memory that the libraries compute in.
pub(crate) struct Libraries {
    convolutions: Mutex<Convolutions>,
    products: Mutex<Products>,
    /// As large as the largest request so far. Work in one stream runs in order, so that all can share it.
    workspace: Mutex<Option<CudaSlice<u8>>>,
    config: CudaConfig,
    stream: Arc<CudaStream>,
}

/// Memory of the device.
#[derive(Clone, Copy)]
struct Memory {
    start: *mut c_void,
    bytes: usize,
}

/// The GPU, the version of cuDNN, and what the settings change.
impl std::fmt::Display for Libraries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.stream.context().name();
        let name = name.as_deref().unwrap_or("a GPU without a name");
        let version = cudnn::result::get_version();
        let (major, minor, patch) = (version / 10_000, version / 100 % 100, version % 100);
        write!(f, "{name}, cuDNN {major}.{minor}.{patch}")?;
        if self.config.tf32 {
            f.write_str(", TF32")?;
        }
        if self.config.deterministic {
            f.write_str(", deterministic")?;
        }
        Ok(())
    }
}

impl Drop for Libraries {
    fn drop(&mut self) {
        // What is given back next belongs to this GPU. A driver that is gone has taken it already.
        let _ = self.bind();
    }
}

impl std::fmt::Debug for Libraries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Libraries").finish_non_exhaustive()
    }
}

impl Libraries {
    pub(crate) fn open(
        device: &Device,
        config: CudaConfig,
    ) -> std::result::Result<Self, CudaError> {
        let Device::Cuda(gpu) = device else {
            let found = format!("{:?}", device.location());
            return Err(CudaError::NotACudaDevice { found });
        };
        let stream = gpu.cuda_stream();
        let failed = |library: &str, error: &dyn std::fmt::Display| {
            CudaError::Driver(format!("{library}: {error}"))
        };
        let bound = stream.context().bind_to_thread();
        bound.map_err(|error| failed("the driver", &error))?;
        let convolutions =
            Convolutions::open(&stream, config).map_err(|error| failed("cuDNN", &error))?;
        let products = Products::open(config).map_err(|error| failed("cuBLASLt", &error))?;
        Ok(Self {
            convolutions: Mutex::new(convolutions),
            products: Mutex::new(products),
            workspace: Mutex::default(),
            config,
            stream,
        })
    }

    /// Makes the GPU that of this thread: the libraries take whichever the thread has.
    fn bind(&self) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(Error::wrap)
    }

    /// Calls `run` with `bytes` of memory; null for 0.
    fn with_workspace<R>(&self, bytes: usize, run: impl FnOnce(Memory) -> R) -> Result<R> {
        if bytes == 0 {
            let start = ptr::null_mut();
            return Ok(run(Memory { start, bytes }));
        }
        let mut workspace = locked(&self.workspace);
        if workspace.as_ref().is_none_or(|memory| memory.len() < bytes) {
            // The old one is freed in the stream's order, after all that uses it.
            *workspace = None;
        }
        let memory = match &mut *workspace {
            Some(memory) => memory,
            // SAFETY: the libraries write before they read.
            none => none.insert(unsafe { self.stream.alloc(bytes) }.map_err(Error::wrap)?),
        };
        let start = memory.device_ptr_mut(&self.stream).0 as *mut c_void;
        Ok(run(Memory { start, bytes }))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
