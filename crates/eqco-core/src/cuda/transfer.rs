//! What goes from host memory to the device and back, without either waiting for the other.

use candle_core::{DType, Tensor, WithDType};

#[cfg(any(feature = "cuda", feature = "cuda-emulation"))]
use super::Target;
#[cfg(feature = "cuda")]
use super::device::Fetched;
use super::{CudaError, Queue};

impl Queue {
    /// Copies `values` to the device and calls `launch` with their address there, for kernels that it sends to this queue;
    /// the memory is someone else's afterwards.
    ///
    /// On a GPU the copy runs beside earlier kernels, out of page-locked memory. `values` are free again when this returns.
    ///
    /// # Errors
    /// Those of `launch`, and what the driver refuses.
    pub fn upload<T: WithDType, R, E: From<CudaError>>(
        &self,
        values: &[T],
        launch: impl FnOnce(u64) -> Result<R, E>,
    ) -> Result<R, E> {
        match self.0 {
            #[cfg(feature = "cuda")]
            Target::Device(ref gpu) => {
                // SAFETY: candle's element types are plain numbers.
                let bytes = unsafe {
                    std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values))
                };
                gpu.upload(bytes, launch)
            }
            #[cfg(feature = "cuda-emulation")]
            Target::Emulated => launch(values.as_ptr() as u64),
            #[cfg(not(any(feature = "cuda", feature = "cuda-emulation")))]
            _ => {
                let _ = (values, launch);
                unreachable!("there is no queue in this build")
            }
        }
    }

    /// Asks for the values of a contiguous tensor of f64, as they are when all kernels launched so far have run.
    ///
    /// # Errors
    /// When the tensor has another type or layout or is out of the queue's reach, and what the driver refuses.
    pub fn fetch(&self, numbers: &Tensor) -> candle_core::Result<Fetch> {
        if numbers.dtype() != DType::F64 {
            candle_core::bail!("expected f64 to fetch, found {:?}", numbers.dtype());
        }
        match self.0 {
            #[cfg(feature = "cuda")]
            Target::Device(ref gpu) => {
                let (address, count) = (super::address(numbers)?, numbers.elem_count());
                // SAFETY: the tensor is contiguous; its memory is freed in the queue's order.
                let fetched = unsafe { gpu.fetch(address, count) }?;
                Ok(Fetch(Source::Device(fetched)))
            }
            #[cfg(feature = "cuda-emulation")]
            Target::Emulated => Ok(Fetch(Source::Here(numbers.flatten_all()?.to_vec1()?))),
            #[cfg(not(any(feature = "cuda", feature = "cuda-emulation")))]
            _ => unreachable!("there is no queue in this build"),
        }
    }
}

/// Numbers on their way to the host.
#[must_use]
pub struct Fetch(Source);

enum Source {
    #[cfg(feature = "cuda-emulation")]
    Here(Vec<f64>),
    #[cfg(feature = "cuda")]
    Device(Fetched),
}

impl Fetch {
    /// The numbers; waits until they have arrived.
    ///
    /// # Errors
    /// When work before them has failed on the device.
    pub fn wait(self) -> Result<Vec<f64>, CudaError> {
        match self.0 {
            #[cfg(feature = "cuda-emulation")]
            Source::Here(numbers) => Ok(numbers),
            #[cfg(feature = "cuda")]
            Source::Device(fetched) => Ok(fetched.wait()?),
        }
    }
}

impl std::fmt::Debug for Fetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fetch")
    }
}
