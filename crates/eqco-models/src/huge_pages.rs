//! Large pages for large arrays: a pass over tens of megabytes in pages of 4 KiB spends a good part of its time on looking
//! up addresses.

/// A large page of x86-64 and, mostly, of AArch64.
const PAGE: usize = 2 << 20;

/// Where an array of so many bytes should start: small ones have no use of large pages.
pub(crate) fn alignment(bytes: usize) -> usize {
    if bytes < PAGE { 1 } else { PAGE }
}

/// Asks the system to back the whole large pages within `memory` with such pages when they are first touched. Where it cannot,
/// nothing changes.
#[cfg(target_os = "linux")]
pub(crate) fn advise(memory: *mut u8, bytes: usize) {
    let skipped = memory.align_offset(PAGE);
    let whole = bytes.saturating_sub(skipped) / PAGE * PAGE;
    if whole > 0 {
        // SAFETY: the range lies within the caller's allocation, and the advice changes no contents. It may fail, on kernels
        // without large pages, and nothing depends on it.
        unsafe {
            libc::madvise(memory.add(skipped).cast(), whole, libc::MADV_HUGEPAGE);
        }
    }
}

/// Other systems choose pages themselves.
#[cfg(not(target_os = "linux"))]
pub(crate) fn advise(_: *mut u8, _: usize) {}
