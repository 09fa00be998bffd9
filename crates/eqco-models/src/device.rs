//! Where tensors live, by the names that devices have in configurations.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use eqco_core::cuda::CudaError;
use serde::{Deserialize, Serialize};

/// A device: `cpu`, or `cuda:1` for the second GPU; `cuda` is the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// Host memory.
    #[default]
    Cpu,
    /// An NVIDIA GPU, counted from 0.
    Cuda(usize),
}

impl DeviceName {
    /// Makes the device ready.
    ///
    /// # Errors
    /// [`CudaError::NotBuilt`] in a build without CUDA, [`CudaError::Driver`] when there is no such GPU.
    pub fn open(self) -> Result<Device, CudaError> {
        let Self::Cuda(ordinal) = self else {
            return Ok(Device::Cpu);
        };
        if !cfg!(feature = "cuda") {
            return Err(CudaError::NotBuilt);
        }
        // A stream of its own: candle's usual one is another one in every thread, and the order of kernels would be lost
        // where the pool's threads take turns.
        let device = Device::new_cuda_with_stream(ordinal)
            .map_err(|error| cannot_be_used(ordinal, error))?;
        #[cfg(feature = "cuda")]
        if let Device::Cuda(gpu) = &device {
            // SAFETY: all work is in the one stream made above, which runs it in order; uploads, which are in another one,
            // have events of their own.
            unsafe { gpu.disable_event_tracking() };
            keep_memory(gpu).map_err(|error| cannot_be_used(ordinal, error))?;
        }
        Ok(device)
    }
}

fn cannot_be_used(ordinal: usize, error: candle_core::Error) -> CudaError {
    // Where the program was is of no help to its user.
    let error = match error {
        candle_core::Error::WithBacktrace { inner, .. } => *inner,
        other => other,
    };
    CudaError::Driver(format!("GPU {ordinal} cannot be used: {error}"))
}

/// Keeps freed memory for the next request: by itself the driver gives all of it back whenever the host waits for the GPU, and
/// the next step would have to ask for it again.
#[cfg(feature = "cuda")]
fn keep_memory(gpu: &candle_core::CudaDevice) -> candle_core::Result<()> {
    use candle_core::cuda_backend::cudarc::driver::{result, sys};

    let stream = gpu.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the device is that of a context which is alive, and the attribute is 8 bytes wide.
    let kept = unsafe {
        result::device::get_default_mem_pool(context.cu_device()).and_then(|pool| {
            result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast())
        })
    };
    kept.map_err(candle_core::Error::wrap)
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let ordinal = match name.split_once(':') {
            None if name == "cpu" => return Ok(Self::Cpu),
            None if name == "cuda" => Some(0),
            Some(("cuda", ordinal)) => ordinal.parse().ok(),
            _ => None,
        };
        ordinal
            .map(Self::Cuda)
            .ok_or_else(|| format!("expected `cpu`, `cuda` or `cuda:NUMBER`, found `{name}`"))
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<DeviceName> for String {
    fn from(device: DeviceName) -> Self {
        device.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for (text, device) in [("cpu", DeviceName::Cpu), ("cuda:3", DeviceName::Cuda(3))] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
            let stored = serde_json::to_string(&device).unwrap();
            assert_eq!(serde_json::from_str::<DeviceName>(&stored).unwrap(), device);
        }
        assert_eq!("cuda".parse(), Ok(DeviceName::Cuda(0)));
        for text in ["gpu", "cuda:", "cuda:x", "CPU", "cuda:-1"] {
            let error = text.parse::<DeviceName>().unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_and_never_the_cpu() {
        assert!(DeviceName::Cpu.open().unwrap().is_cpu());
        let error = DeviceName::Cuda(99).open().unwrap_err().to_string();
        let expected = if cfg!(feature = "cuda") {
            "GPU 99"
        } else {
            "this build has no CUDA kernels"
        };
        assert!(error.contains(expected), "{error}");
    }
}
