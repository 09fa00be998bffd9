//! The most memory of a device that was in use at a time.

use anyhow::Result;
use candle_core::Device;

/// Forgets the peak so far. Does nothing on the CPU.
///
/// # Errors
/// When the driver refuses.
pub fn reset_peak(device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        return gpu::reset_peak(gpu);
    }
    let _ = device;
    Ok(())
}

/// Bytes that tensors and workspaces had at most since [`reset_peak`]; `None` on the CPU, and on a GPU without pools of memory. What
/// the driver and NVIDIA's libraries take for themselves is not in it, neither is it in what PyTorch tells.
///
/// # Errors
/// When the driver refuses.
pub fn peak_bytes(device: &Device) -> Result<Option<u64>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        return gpu::peak_bytes(gpu);
    }
    let _ = device;
    Ok(None)
}

#[cfg(feature = "cuda")]
mod gpu {
    use anyhow::{Context, Result};
    use candle_core::CudaDevice;
    use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool};
    use candle_core::cuda_backend::cudarc::driver::sys::{CUmemPool_attribute_enum, CUmemoryPool};

    const PEAK: CUmemPool_attribute_enum = CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_USED_MEM_HIGH;

    fn pool(gpu: &CudaDevice) -> Result<Option<CUmemoryPool>> {
        let stream = gpu.cuda_stream();
        let context = stream.context();
        if !context.has_async_alloc() {
            return Ok(None);
        }
        context.bind_to_thread()?;
        // SAFETY: the device is that of a live context.
        let pool = unsafe { device::get_mem_pool(context.cu_device()) };
        pool.map(Some).context("the device's pool of memory")
    }

    pub(super) fn reset_peak(gpu: &CudaDevice) -> Result<()> {
        gpu.cuda_stream().synchronize()?;
        let Some(pool) = pool(gpu)? else {
            return Ok(());
        };
        let mut zero = 0u64;
        // SAFETY: the pool is the device's own, and the attribute is a u64 that may be set to 0.
        unsafe { mem_pool::set_attribute(pool, PEAK, (&raw mut zero).cast()) }
            .context("the peak of memory cannot be reset")
    }

    pub(super) fn peak_bytes(gpu: &CudaDevice) -> Result<Option<u64>> {
        gpu.cuda_stream().synchronize()?;
        let Some(pool) = pool(gpu)? else {
            return Ok(None);
        };
        let mut bytes = 0u64;
        // SAFETY: the pool is the device's own, and the attribute is a u64.
        unsafe { mem_pool::get_attribute(pool, PEAK, (&raw mut bytes).cast()) }
            .context("the peak of memory cannot be read")?;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_tells_on_the_cpu() -> Result<()> {
        reset_peak(&Device::Cpu)?;
        assert_eq!(peak_bytes(&Device::Cpu)?, None);
        Ok(())
    }
}
