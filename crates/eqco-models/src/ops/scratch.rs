//! Scratch memory that a thread keeps between kernels, so that fresh pages are touched once.

use std::cell::RefCell;

use crate::huge_pages;

thread_local! {
    /// A stack: a kernel that asks within another's use gets a buffer of its own, the same one every time.
    static SCRATCH: RefCell<Vec<Scratch>> = const { RefCell::new(Vec::new()) };
}

/// A cache line in bytes: vectors that straddle two lines load at half the speed.
const CACHE_LINE: usize = 64;

#[derive(Default)]
struct Scratch {
    memory: Vec<f32>,
    /// The first element that is aligned.
    start: usize,
}

impl Scratch {
    /// Zeros come from the system when they are touched, which nothing here does.
    fn new(len: usize) -> Self {
        let alignment = huge_pages::alignment(4 * len).max(CACHE_LINE);
        let mut memory = vec![0.0; len + alignment / size_of::<f32>()];
        let start = memory.as_ptr().align_offset(alignment);
        huge_pages::advise(memory[start..].as_mut_ptr().cast(), 4 * len);
        Self { memory, start }
    }
}

/// Calls `f` with `len` elements of this thread's scratch memory, aligned to 64 bytes; contents unspecified.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut scratch = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    if scratch.memory.len() < scratch.start + len {
        scratch = Scratch::new(len);
    }
    let usable = &mut scratch.memory[scratch.start..][..len];
    // As with recycled buffers, the crate's own tests run on poisoned memory.
    #[cfg(test)]
    usable.fill(f32::NAN);
    let result = f(usable);
    SCRATCH.with_borrow_mut(|stack| stack.push(scratch));
    result
}
