//! Slices of candle tensors for kernels, and the two element-wise operations that everything needs.

use std::cell::Cell;
use std::marker::PhantomData;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};

use super::element::{Element, for_element};
use super::lanes;
use crate::backend::Backend;
use crate::cuda::by_type;

/// Calls `f` with the contents of a contiguous tensor of `T` on the CPU.
pub(crate) fn read<T: Element, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let values = match &*storage {
        Storage::Cpu(storage) => T::slice(storage),
        _ => None,
    };
    match values {
        Some(values) => Ok(f(&values[bounds(layout)?])),
        None => bail!(
            "expected a tensor of {:?} on the CPU, found {:?} on {:?}",
            T::DTYPE,
            tensor.dtype(),
            tensor.device()
        ),
    }
}

/// Calls `f` with the contents of a contiguous tensor of `T` on the CPU, to be overwritten in place.
pub(crate) fn write<T: Element, R>(tensor: &Tensor, f: impl FnOnce(&mut [T]) -> R) -> Result<R> {
    let op = Write {
        kernel: Cell::new(Some(f)),
        result: Cell::new(None),
        element: PhantomData,
    };
    tensor.inplace_op1(&op)?;
    match op.result.take() {
        Some(result) => Ok(result),
        None => bail!("an in-place kernel was not run"),
    }
}

struct Write<T, F, R> {
    kernel: Cell<Option<F>>,
    result: Cell<Option<R>>,
    element: PhantomData<T>,
}

impl<T: Element, F: FnOnce(&mut [T]) -> R, R> InplaceOp1 for Write<T, F, R> {
    fn name(&self) -> &'static str {
        "eqco-kernel"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let found = storage_kind(storage);
        let Some(values) = T::slice_mut(storage) else {
            bail!("expected storage of {:?}, found {found:?}", T::DTYPE)
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

/// `target = source`, in place; same type and element count, `source` on any device.
pub(crate) fn copy_into(target: &Tensor, source: &Tensor) -> Result<()> {
    if !target.device().is_cpu() {
        let source = source.to_device(target.device())?.flatten_all()?;
        return target.flatten_all()?.slice_set(&source, 0, 0);
    }
    for_element!(target.dtype(), T => read(source, |s: &[T]| {
        write(target, |t: &mut [T]| {
            lanes::zip_chunks(
                t,
                s,
                #[inline(always)]
                |t, s| t.copy_from_slice(s),
            )
        })
    })?)
}

/// `target += source`, in place; same type and element count.
pub(crate) fn add_into(backend: &Backend, target: &Tensor, source: &Tensor) -> Result<()> {
    if let Some(cuda) = backend.cuda() {
        let kernel = by_type(target.dtype(), ["add_into_f32", "add_into_bf16"]);
        return cuda.elementwise(kernel, source, target);
    }
    for_element!(target.dtype(), T => read(source, |s: &[T]| {
        write(target, |t: &mut [T]| {
            lanes::zip_chunks(
                t,
                s,
                #[inline(always)]
                |t, s| {
                    for (t, s) in t.iter_mut().zip(s) {
                        *t = T::store(t.load() + s.load());
                    }
                },
            )
        })
    })?)
}
