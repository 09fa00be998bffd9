//! How kernels spread over threads and vector units.

use std::ops::Range;
use std::sync::OnceLock;

use pulp::{Arch, WithSimd};
use rayon::prelude::*;

/// Elements that one task handles in a memory-bound pass: large enough to hide scheduling, small enough for the cache.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Runs `kernel` compiled for the widest vector unit of this CPU (AVX-512, AVX2 with FMA, NEON, or the baseline).
///
/// The closure must be `#[inline(always)]`, and so must be what it calls: code that is not inlined here stays at the
/// baseline, silently.
#[inline(always)]
pub(crate) fn vectorized<R>(kernel: impl FnOnce() -> R) -> R {
    struct Kernel<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Kernel<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    dispatch(Kernel(kernel))
}

/// Runs an operation written on `pulp`'s vectors, for the widest vector unit of this CPU.
#[inline(always)]
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    #[cfg(test)]
    if let Some(arch) = FORCED.get() {
        return arch.dispatch(op);
    }
    ARCH.get_or_init(Arch::new).dispatch(op)
}

#[cfg(test)]
thread_local! {
    /// What the kernels of this thread run on instead of the widest unit.
    static FORCED: std::cell::Cell<Option<Arch>> = const { std::cell::Cell::new(None) };
}

/// Calls `f` on two threads whose kernels run on `arch`.
#[cfg(test)]
pub(crate) fn with_arch<R: Send>(arch: Arch, f: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .start_handler(move |_| FORCED.set(Some(arch)))
        .build();
    pool.expect("a pool").install(f)
}

/// The units of this CPU that are narrower than the widest one.
#[cfg(test)]
pub(crate) fn narrower_archs() -> Vec<Arch> {
    #[cfg(target_arch = "x86_64")]
    let avx2 = pulp::x86::V3::try_new().map(Arch::V3);
    #[cfg(not(target_arch = "x86_64"))]
    let avx2 = None;
    avx2.into_iter().chain([Arch::Scalar]).collect()
}

/// The vector unit that kernels are compiled for here, for people.
pub(crate) fn instruction_set() -> &'static str {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    match dispatch(Width) {
        16 => "AVX-512",
        8 => "AVX2",
        4 => "NEON",
        _ => "no vector unit",
    }
}

/// Applies `kernel` to equal chunks of two slices of one length, in parallel.
pub(crate) fn zip_chunks<T: Send, S: Sync>(
    target: &mut [T],
    source: &[S],
    kernel: impl Fn(&mut [T], &[S]) + Sync,
) {
    assert_eq!(
        target.len(),
        source.len(),
        "both slices hold the same number of elements"
    );
    target
        .par_chunks_mut(CHUNK)
        .zip(source.par_chunks(CHUNK))
        .for_each(|(target, source)| {
            vectorized(
                #[inline(always)]
                || kernel(target, source),
            )
        });
}

/// Splits `0..count` into at most `parts` ranges of nearly equal length.
pub(crate) fn split(count: usize, parts: usize) -> Vec<Range<usize>> {
    let parts = parts.clamp(1, count.max(1));
    (0..parts)
        .map(|part| count * part / parts..count * (part + 1) / parts)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_covers_everything_once() {
        for (count, parts) in [(0, 4), (1, 4), (7, 3), (64, 2), (5, 5)] {
            let ranges = split(count, parts);
            assert!(ranges.len() <= parts);
            assert_eq!(
                ranges.iter().cloned().flatten().collect::<Vec<_>>(),
                (0..count).collect::<Vec<_>>()
            );
        }
    }
}
