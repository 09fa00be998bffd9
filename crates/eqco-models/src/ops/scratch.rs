//! Scratch memory that a thread keeps between kernels, so that fresh pages are touched once.

use std::cell::RefCell;

use crate::huge_pages;

thread_local! {
    /// A stack: a kernel that asks within another's use gets a buffer of its own, the same one every time.
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A cache line in bytes: vectors that straddle two lines load at half the speed.
const ALIGNMENT: usize = 64;

/// Calls `f` with `len` elements of this thread's scratch memory, aligned to 64 bytes; contents unspecified.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut scratch = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    let room = len + ALIGNMENT / size_of::<f32>();
    if scratch.len() < room {
        scratch = Vec::with_capacity(room);
        huge_pages::advise(scratch.as_mut_ptr().cast(), 4 * room);
        scratch.resize(room, 0.0);
    }
    let start = scratch.as_ptr().align_offset(ALIGNMENT);
    let usable = &mut scratch[start..start + len];
    // As with recycled buffers, the crate's own tests run on poisoned memory.
    #[cfg(test)]
    usable.fill(f32::NAN);
    let result = f(usable);
    SCRATCH.with_borrow_mut(|stack| stack.push(scratch));
    result
}
