//! Numbers from the GPU, read when they have arrived.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaStream, DriverError, PinnedHostSlice, result, sys,
};

/// Page-locked memory that is not in use.
#[derive(Clone, Default)]
pub(super) struct Fetches {
    free: Arc<Mutex<Vec<PinnedHostSlice<f64>>>>,
}

/// A copy that is under way, or has been.
pub(in super::super) struct Fetched {
    numbers: Option<PinnedHostSlice<f64>>,
    arrived: CudaEvent,
    home: Fetches,
}

impl Fetches {
    /// Asks for the `count` numbers at `address` as they are when all work sent to `stream` so far is done.
    ///
    /// # Safety
    /// There must be as many; they may be freed in the stream's order.
    pub(super) unsafe fn start(
        &self,
        stream: &CudaStream,
        address: u64,
        count: usize,
    ) -> Result<Fetched, DriverError> {
        let context = stream.context();
        let recycled = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let place = free.iter().position(|numbers| numbers.len() == count);
            place.map(|place| free.swap_remove(place))
        };
        let mut numbers = match recycled {
            Some(numbers) => numbers,
            // SAFETY: read only after the copy has arrived.
            None => unsafe { context.alloc_pinned_with_flags(count, 0)? },
        };
        // A thread that waits lets others compute.
        let arrived = context.new_event(Some(sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC))?;
        context.bind_to_thread()?;
        // SAFETY: the caller's promise; the host's memory stays until the copy has arrived.
        unsafe {
            result::memcpy_dtoh_async(numbers.as_mut_slice()?, address, stream.cu_stream())?;
        }
        arrived.record(stream)?;
        Ok(Fetched {
            numbers: Some(numbers),
            arrived,
            home: self.clone(),
        })
    }
}

impl Fetched {
    /// Waits until the numbers are there.
    pub(in super::super) fn wait(&self) -> Result<Vec<f64>, DriverError> {
        self.arrived.synchronize()?;
        match &self.numbers {
            Some(numbers) => Ok(numbers.as_slice()?.to_vec()),
            None => Ok(Vec::new()),
        }
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // Nobody may write there before the copy has. There is nobody to tell of a failure.
        let _ = self.arrived.synchronize();
        let mut free = self
            .home
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.extend(self.numbers.take());
    }
}
