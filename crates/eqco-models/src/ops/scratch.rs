//! Scratch memory that a thread keeps between kernels, so that fresh pages are touched once.

use std::cell::RefCell;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` elements of this thread's scratch memory; contents unspecified.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken out while in use: should `f` wait inside the thread pool, another task on this thread gets its own.
    let mut scratch = SCRATCH.take();
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    // As with recycled buffers, the crate's own tests run on poisoned memory.
    #[cfg(test)]
    scratch[..len].fill(f32::NAN);
    let result = f(&mut scratch[..len]);
    SCRATCH.set(scratch);
    result
}
