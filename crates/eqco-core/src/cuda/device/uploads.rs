//! Host memory to the GPU, beside its work.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaSlice, CudaStream, DevicePtr, DriverError, PinnedHostSlice, result, sys,
};
use rayon::prelude::*;

use crate::cuda::CudaError;

/// Uploads that can be under way at a time: two steps' worth of two views, and of lists beside them.
const LARGE_SLOTS: usize = 4;
const SMALL_SLOTS: usize = 12;
/// Fewer bytes are small: a list must not take memory that has grown with images.
const LARGE: usize = 1 << 20;
/// What one thread copies at a time, in bytes.
const PIECE: usize = 1 << 20;

/// Memory that copies go through, on a stream of their own: the host fills one piece while the GPU fetches another and
/// computes with a third.
pub(super) struct Uploads {
    copies: Arc<CudaStream>,
    large: Slots<LARGE_SLOTS>,
    small: Slots<SMALL_SLOTS>,
}

/// Taken in turn.
struct Slots<const COUNT: usize> {
    places: [Mutex<Option<Slot>>; COUNT],
    next: AtomicUsize,
}

impl<const COUNT: usize> Slots<COUNT> {
    fn new() -> Self {
        Self {
            places: [const { Mutex::new(None) }; COUNT],
            next: AtomicUsize::new(0),
        }
    }

    fn take(&self) -> MutexGuard<'_, Option<Slot>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % COUNT;
        self.places[turn]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

struct Slot {
    /// Page-locked: from other memory the driver copies when all work before it is done.
    host: PinnedHostSlice<u8>,
    device: CudaSlice<u8>,
    /// Behind the last copy from `host`.
    copied: CudaEvent,
    /// Behind the last kernel that reads `device`.
    used: CudaEvent,
}

impl Slot {
    fn new(copies: &Arc<CudaStream>, bytes: usize) -> Result<Self, DriverError> {
        let context = copies.context();
        // A thread that waits lets others compute.
        let event = || context.new_event(Some(sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC));
        // SAFETY: both are written before they are read.
        let (host, device) = unsafe { (context.alloc_pinned(bytes)?, copies.alloc(bytes)?) };
        Ok(Self {
            host,
            device,
            copied: event()?,
            used: event()?,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Memory is freed when nobody uses it any more. There is nobody to tell of a failure.
        let _ = self.copied.synchronize();
        let _ = self.used.synchronize();
    }
}

impl Uploads {
    /// For work in `stream`.
    pub(super) fn beside(stream: &CudaStream) -> Result<Self, DriverError> {
        Ok(Self {
            copies: stream.context().new_stream()?,
            large: Slots::new(),
            small: Slots::new(),
        })
    }

    /// Copies `bytes` to the GPU and calls `launch` with their address there; work that it sends to `stream` finds them, and
    /// no other may use the address. Waits only for an upload several steps back.
    pub(super) fn with<R, E: From<CudaError>>(
        &self,
        stream: &CudaStream,
        bytes: &[u8],
        launch: impl FnOnce(u64) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut place = if bytes.len() < LARGE {
            self.small.take()
        } else {
            self.large.take()
        };
        let slot = self.send(&mut place, bytes).map_err(CudaError::from)?;
        stream.wait(&slot.copied).map_err(CudaError::from)?;
        let address = slot.device.device_ptr(stream).0;
        let result = launch(address)?;
        slot.used.record(stream).map_err(CudaError::from)?;
        Ok(result)
    }

    /// Starts the copy through what is at `place`, or through a new and larger slot.
    fn send<'a>(&self, place: &'a mut Option<Slot>, bytes: &[u8]) -> Result<&'a Slot, DriverError> {
        let is_too_small = |slot: &Slot| slot.host.len() < bytes.len();
        if place.as_ref().is_some_and(is_too_small) {
            *place = None;
        }
        let slot = match place {
            Some(slot) => slot,
            none => none.insert(Slot::new(&self.copies, bytes.len().max(1))?),
        };
        slot.copied.synchronize()?;
        let staged = &mut slot.host.as_mut_slice()?[..bytes.len()];
        staged
            .par_chunks_mut(PIECE)
            .zip(bytes.par_chunks(PIECE))
            .for_each(|(staged, bytes)| staged.copy_from_slice(bytes));
        self.copies.wait(&slot.used)?;
        let address = slot.device.device_ptr(&self.copies).0;
        // SAFETY: the memory on either side is as long, and stays until both events have passed.
        unsafe { result::memcpy_htod_async(address, staged, self.copies.cu_stream())? };
        slot.copied.record(&self.copies)?;
        Ok(slot)
    }
}
