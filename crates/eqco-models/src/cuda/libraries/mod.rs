//! NVIDIA's libraries on a GPU: cuDNN's convolutions, cuBLASLt's matrix products.

mod at;
mod convolution;
mod product;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::cublaslt::CudaBlasLT;
use candle_core::cuda_backend::cudarc::cudnn::Cudnn;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream};
use candle_core::{Device, Error, Result};
use eqco_core::cuda::CudaError;

use self::convolution::{Algorithm, Problem};

/// Handles, what has been chosen for each convolution, and the memory that the libraries compute in.
pub(crate) struct Libraries {
    stream: Arc<CudaStream>,
    cudnn: Mutex<Handle>,
    products: CudaBlasLT,
    algorithms: Mutex<HashMap<Problem, Algorithm>>,
    /// As large as the largest request so far. Work in one stream runs in order, so that all can share it.
    workspace: Mutex<Option<CudaSlice<u8>>>,
}

/// cuDNN's handle, which may move between threads but not be used by two at a time.
struct Handle(Arc<Cudnn>);

// SAFETY: cuDNN allows a handle to be used by any thread, one at a time: the mutex around it sees to that, and nothing made
// from it leaves the lock.
unsafe impl Send for Handle {}

impl std::fmt::Debug for Libraries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Libraries").finish_non_exhaustive()
    }
}

impl Libraries {
    pub(crate) fn open(device: &Device) -> std::result::Result<Self, CudaError> {
        let Device::Cuda(gpu) = device else {
            let found = format!("{:?}", device.location());
            return Err(CudaError::NotACudaDevice { found });
        };
        let stream = gpu.cuda_stream();
        let failed =
            |library: &str, error: String| CudaError::Driver(format!("{library}: {error}"));
        let cudnn =
            Cudnn::new(Arc::clone(&stream)).map_err(|error| failed("cuDNN", error.to_string()))?;
        let products = CudaBlasLT::new(Arc::clone(&stream))
            .map_err(|error| failed("cuBLASLt", error.to_string()))?;
        Ok(Self {
            stream,
            cudnn: Mutex::new(Handle(cudnn)),
            products,
            algorithms: Mutex::default(),
            workspace: Mutex::default(),
        })
    }

    /// Calls `run` with at least `bytes` of memory, or none for 0.
    fn with_workspace<R>(
        &self,
        bytes: usize,
        run: impl FnOnce(Option<&mut CudaSlice<u8>>) -> R,
    ) -> Result<R> {
        if bytes == 0 {
            return Ok(run(None));
        }
        let mut workspace = locked(&self.workspace);
        if workspace.as_ref().is_none_or(|memory| memory.len() < bytes) {
            // The old one is freed in the stream's order, after all that uses it.
            *workspace = None;
            // SAFETY: the libraries write before they read.
            *workspace = Some(unsafe { self.stream.alloc(bytes) }.map_err(Error::wrap)?);
        }
        Ok(run(workspace.as_mut()))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
