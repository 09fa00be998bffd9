//! Recycled activation memory: a training step in steady state allocates nothing large.
//!
//! A first touch of fresh memory costs as much as a pass over it, so buffers go back to their pool when the last
//! activation that uses them is dropped and the next request of the same size gets them again, uncleared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Tensor};

/// Free flat tensors, by element count.
#[derive(Debug)]
pub struct BufferPool {
    device: Device,
    free: Mutex<HashMap<usize, Vec<Tensor>>>,
}

impl BufferPool {
    /// An empty pool on `device`.
    pub fn new(device: &Device) -> Arc<Self> {
        Arc::new(Self {
            device: device.clone(),
            free: Mutex::new(HashMap::new()),
        })
    }

    /// A flat f32 buffer of `len` elements with unspecified contents.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Result<Buffer> {
        let recycled = self.lock().get_mut(&len).and_then(Vec::pop);
        let flat = match recycled {
            Some(flat) => flat,
            None => Tensor::zeros(len, DType::F32, &self.device)?,
        };
        Ok(Buffer {
            flat,
            pool: Arc::clone(self),
        })
    }

    /// Frees every buffer that is not in use, for instance before a pass with another batch size.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<usize, Vec<Tensor>>> {
        // A panic while the map is held leaves at worst a missing entry: the map is still sound.
        self.free
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// One buffer on loan; dropping it returns it.
#[derive(Debug)]
pub(crate) struct Buffer {
    flat: Tensor,
    pool: Arc<BufferPool>,
}

impl Buffer {
    pub(crate) fn flat(&self) -> &Tensor {
        &self.flat
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let flat = self.flat.clone();
        self.pool
            .lock()
            .entry(flat.elem_count())
            .or_default()
            .push(flat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_handed_out_again_and_a_held_one_is_not() -> Result<()> {
        let pool = BufferPool::new(&Device::Cpu);
        let first = pool.take(8)?;
        let first_id = first.flat().id();
        let second = pool.take(8)?;
        assert_ne!(first_id, second.flat().id());
        drop(first);
        assert_ne!(pool.take(9)?.flat().id(), first_id);
        assert_eq!(pool.take(8)?.flat().id(), first_id);
        Ok(())
    }
}
