//! Addresses of tensors, as kernels want them.

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Storage, Tensor, bail};
use std::cell::Cell;

/// Types of elements that kernels read and write.
pub trait Element: candle_core::WithDType {
    /// Their end in the names of kernels.
    const SUFFIX: &'static str;
}

impl Element for f32 {
    const SUFFIX: &'static str = "f32";
}

impl Element for half::bf16 {
    const SUFFIX: &'static str = "bf16";
}

/// Where the first element of a contiguous tensor lies, to be read. Valid as long as the tensor is.
///
/// # Errors
/// When the tensor is not contiguous.
pub fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let offset = offset_in_bytes(layout, tensor.dtype())?;
    let start = match &*storage {
        Storage::Cpu(storage) => start_on_cpu(storage)?,
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => super::device::start(storage)?,
        _ => bail!("kernels cannot reach a tensor on {:?}", tensor.device()),
    };
    Ok(start + offset)
}

/// Where the first element of a contiguous tensor lies, to be written. Valid as long as the tensor is.
///
/// # Errors
/// When the tensor is not contiguous.
pub fn address_mut(tensor: &Tensor) -> Result<u64> {
    let find = FindStart {
        start: Cell::new(None),
        dtype: tensor.dtype(),
    };
    tensor.inplace_op1(&find)?;
    match find.start.take() {
        Some(start) => Ok(start),
        None => bail!("kernels cannot reach a tensor on {:?}", tensor.device()),
    }
}

struct FindStart {
    start: Cell<Option<u64>>,
    dtype: DType,
}

impl InplaceOp1 for FindStart {
    fn name(&self) -> &'static str {
        "eqco-address"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let start = start_to_write(storage)? + offset_in_bytes(layout, self.dtype)?;
        self.start.set(Some(start));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut candle_core::CudaStorage, layout: &Layout) -> Result<()> {
        let start = super::device::start(storage)? + offset_in_bytes(layout, self.dtype)?;
        self.start.set(Some(start));
        Ok(())
    }
}

fn offset_in_bytes(layout: &Layout, dtype: DType) -> Result<u64> {
    match layout.contiguous_offsets() {
        Some((start, _)) => Ok((start * dtype.size_in_bytes()) as u64),
        None => bail!(
            "expected a contiguous tensor, found strides {:?} for shape {:?}",
            layout.stride(),
            layout.dims()
        ),
    }
}

fn start_on_cpu(storage: &CpuStorage) -> Result<u64> {
    Ok(match storage {
        CpuStorage::F32(values) => values.as_ptr() as u64,
        CpuStorage::F64(values) => values.as_ptr() as u64,
        CpuStorage::BF16(values) => values.as_ptr() as u64,
        CpuStorage::U8(values) => values.as_ptr() as u64,
        CpuStorage::U32(values) => values.as_ptr() as u64,
        _ => bail!("kernels know f32, f64, bf16, u8 and u32"),
    })
}

fn start_to_write(storage: &mut CpuStorage) -> Result<u64> {
    Ok(match storage {
        CpuStorage::F32(values) => values.as_mut_ptr() as u64,
        CpuStorage::F64(values) => values.as_mut_ptr() as u64,
        CpuStorage::BF16(values) => values.as_mut_ptr() as u64,
        CpuStorage::U8(values) => values.as_mut_ptr() as u64,
        CpuStorage::U32(values) => values.as_mut_ptr() as u64,
        _ => bail!("kernels know f32, f64, bf16, u8 and u32"),
    })
}
