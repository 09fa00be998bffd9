//! Slices of candle tensors for kernels, and the two element-wise operations that everything needs.

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};

use super::lanes;

/// Calls `f` with the contents of a contiguous f32 tensor on the CPU.
pub(crate) fn read<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => Ok(f(&values[bounds(layout)?])),
        _ => bail!(
            "expected an f32 tensor on the CPU, found {:?} on {:?}",
            tensor.dtype(),
            tensor.device()
        ),
    }
}

/// Calls `f` with the contents of a contiguous f32 tensor on the CPU, to be overwritten in place.
pub(crate) fn write<R>(tensor: &Tensor, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    let op = Write {
        kernel: Cell::new(Some(f)),
        result: Cell::new(None),
    };
    tensor.inplace_op1(&op)?;
    match op.result.take() {
        Some(result) => Ok(result),
        None => bail!("an in-place kernel was not run"),
    }
}

struct Write<F, R> {
    kernel: Cell<Option<F>>,
    result: Cell<Option<R>>,
}

impl<F: FnOnce(&mut [f32]) -> R, R> InplaceOp1 for Write<F, R> {
    fn name(&self) -> &'static str {
        "eqco-kernel"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(values) = storage else {
            bail!("expected f32 storage, found {:?}", storage_kind(storage))
        };
        if let Some(kernel) = self.kernel.take() {
            self.result.set(Some(kernel(&mut values[bounds(layout)?])));
        }
        Ok(())
    }
}

fn bounds(layout: &Layout) -> Result<std::ops::Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!(
            "expected a contiguous tensor, found strides {:?} for shape {:?}",
            layout.stride(),
            layout.dims()
        ),
    }
}

fn storage_kind(storage: &CpuStorage) -> candle_core::DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

/// `target = source`, in place; same element count.
pub(crate) fn copy_into(target: &Tensor, source: &Tensor) -> Result<()> {
    read(source, |s| {
        write(target, |t| {
            lanes::zip_chunks(
                t,
                s,
                #[inline(always)]
                |t, s| t.copy_from_slice(s),
            )
        })
    })?
}

/// `target += source`, in place; same element count.
pub(crate) fn add_into(target: &Tensor, source: &Tensor) -> Result<()> {
    read(source, |s| {
        write(target, |t| {
            lanes::zip_chunks(
                t,
                s,
                #[inline(always)]
                |t, s| t.iter_mut().zip(s).for_each(|(t, s)| *t += s),
            )
        })
    })?
}
