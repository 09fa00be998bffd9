//! Tensors' memory as cudarc's safe interfaces want it.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{
    CudaStream, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop, sys,
};
use candle_core::{Result, Tensor};
use eqco_core::cuda::{address, address_mut};

/// The elements of a tensor at their address. All work is in one stream: there is nothing to wait for.
pub(super) struct At<'a> {
    address: u64,
    len: usize,
    stream: &'a Arc<CudaStream>,
}

impl<'a> At<'a> {
    pub(super) fn read(tensor: &Tensor, stream: &'a Arc<CudaStream>) -> Result<Self> {
        Ok(Self {
            address: address(tensor)?,
            len: tensor.elem_count(),
            stream,
        })
    }

    pub(super) fn written(tensor: &Tensor, stream: &'a Arc<CudaStream>) -> Result<Self> {
        Ok(Self {
            address: address_mut(tensor)?,
            len: tensor.elem_count(),
            stream,
        })
    }
}

impl<T> DeviceSlice<T> for At<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.stream
    }
}

impl<T> DevicePtr<T> for At<'_> {
    fn device_ptr<'b>(&'b self, _: &'b CudaStream) -> (sys::CUdeviceptr, SyncOnDrop<'b>) {
        (self.address, SyncOnDrop::Sync(None))
    }
}

impl<T> DevicePtrMut<T> for At<'_> {
    fn device_ptr_mut<'b>(&'b mut self, _: &'b CudaStream) -> (sys::CUdeviceptr, SyncOnDrop<'b>) {
        (self.address, SyncOnDrop::Sync(None))
    }
}
