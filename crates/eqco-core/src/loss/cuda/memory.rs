//! Memory that kernels write to.

use candle_core::{DType, Device, Result, Shape, Tensor};

/// Gives out memory of a device.
#[derive(Debug)]
pub(super) struct Memory {
    device: Device,
    #[cfg(test)]
    pub(super) guard: Option<super::tests::guard::Guard>,
}

impl Memory {
    pub(super) fn on(device: &Device) -> Self {
        Self {
            device: device.clone(),
            #[cfg(test)]
            guard: None,
        }
    }

    /// A contiguous tensor whose values are anything. Kernels must write all of them before they or others read them.
    pub(super) fn unwritten(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        #[cfg(test)]
        if let Some(guard) = &self.guard {
            return guard.unwritten(&shape.into(), dtype, &self.device);
        }
        // SAFETY: any bits are a value of the number types; that none is read before it has been written is the duty
        // of the kernels, and tests hand out NaN to see it done.
        unsafe { Tensor::empty(shape, dtype, &self.device) }
    }
}
