//! Kernels on a GPU, and what goes to and fro.

mod fetches;
mod uploads;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, CudaStream, DevicePtr, DriverError, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::{CudaStorage, DType, Device, DeviceLocation, bail};
use half::bf16;

use super::{Argument, CudaError, Kernels, Launch};
pub(super) use fetches::Fetched;
use fetches::Fetches;
use uploads::Uploads;

/// Dynamic shared memory beyond this must be asked for.
const USUAL_SHARED: usize = 48 * 1024;

/// One GPU and the kernels that have been loaded to it.
pub(super) struct Gpu {
    stream: Arc<CudaStream>,
    modules: Mutex<HashMap<&'static str, Arc<CudaModule>>>,
    functions: Mutex<HashMap<&'static str, CudaFunction>>,
    uploads: Uploads,
    fetches: Fetches,
}

impl From<DriverError> for CudaError {
    fn from(error: DriverError) -> Self {
        Self::Driver(error.to_string())
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").finish_non_exhaustive()
    }
}

impl Gpu {
    pub(super) fn of(device: &Device) -> Result<Self, CudaError> {
        let Device::Cuda(device) = device else {
            let found = format!("{:?}", device.location());
            return Err(CudaError::NotACudaDevice { found });
        };
        let stream = device.cuda_stream();
        Ok(Self {
            uploads: Uploads::beside(&stream)?,
            fetches: Fetches::default(),
            stream,
            modules: Mutex::default(),
            functions: Mutex::default(),
        })
    }

    /// See [`super::Queue::upload`].
    pub(super) fn upload<R, E: From<CudaError>>(
        &self,
        bytes: &[u8],
        launch: impl FnOnce(u64) -> Result<R, E>,
    ) -> Result<R, E> {
        self.uploads.with(&self.stream, bytes, launch)
    }

    /// Asks for `count` numbers at `address`.
    ///
    /// # Safety
    /// There must be as many.
    pub(super) unsafe fn fetch(&self, address: u64, count: usize) -> Result<Fetched, CudaError> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.fetches.start(&self.stream, address, count)? })
    }

    pub(super) fn serves(&self, device: &Device) -> bool {
        let ours = DeviceLocation::Cuda {
            gpu_id: self.stream.context().ordinal(),
        };
        device.location() == ours
    }

    /// # Safety
    /// That of [`super::Queue::launch`].
    pub(super) unsafe fn launch(&self, kernels: Kernels, launch: &Launch) -> Result<(), String> {
        let function = self.function(kernels, launch.kernel)?;
        let shared_mem_bytes = super::count(launch.shared_bytes);
        if launch.shared_bytes > USUAL_SHARED {
            function
                .set_attribute(
                    CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    shared_mem_bytes as i32,
                )
                .map_err(|error| error.to_string())?;
        }
        let mut builder = self.stream.launch_builder(&function);
        for Argument(value) in &launch.arguments {
            builder.arg(value);
        }
        let [grid_dim, block_dim] = [launch.grid, launch.block].map(|[x, y, z]| (x, y, z));
        let config = LaunchConfig {
            grid_dim,
            block_dim,
            shared_mem_bytes,
        };
        // SAFETY: the caller's promise.
        let launched = unsafe { builder.launch(config) };
        launched.map(drop).map_err(|error| error.to_string())
    }

    fn function(&self, kernels: Kernels, name: &'static str) -> Result<CudaFunction, String> {
        let mut functions = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let function = self
            .module(kernels)?
            .load_function(name)
            .map_err(|error| error.to_string())?;
        functions.insert(name, function.clone());
        Ok(function)
    }

    fn module(&self, kernels: Kernels) -> Result<Arc<CudaModule>, String> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(kernels.name) {
            return Ok(Arc::clone(module));
        }
        let module = self
            .stream
            .context()
            .load_module(Ptx::from_binary(kernels.fatbin.to_vec()))
            .map_err(|error| {
                format!("the kernels of {} cannot be loaded: {error}", kernels.name)
            })?;
        modules.insert(kernels.name, Arc::clone(&module));
        Ok(module)
    }
}

/// Where a storage begins. Valid as long as it lives; all kernels run in one stream, so that nothing has to be waited for.
pub(super) fn start(storage: &CudaStorage) -> candle_core::Result<u64> {
    let stream = storage.device().cuda_stream();
    let start = match storage.dtype() {
        DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
        DType::F64 => storage.as_cuda_slice::<f64>()?.device_ptr(&stream).0,
        DType::BF16 => storage.as_cuda_slice::<bf16>()?.device_ptr(&stream).0,
        DType::U8 => storage.as_cuda_slice::<u8>()?.device_ptr(&stream).0,
        DType::U32 => storage.as_cuda_slice::<u32>()?.device_ptr(&stream).0,
        _ => bail!("kernels know f32, f64, bf16, u8 and u32"),
    };
    Ok(start)
}
