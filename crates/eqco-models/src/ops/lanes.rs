//! How kernels spread over threads and vector units.

use std::ops::Range;
use std::sync::OnceLock;

use pulp::{Arch, WithSimd};
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::product::tiles;

/// Elements that one task handles in a memory-bound pass: large enough to hide scheduling, small enough for the cache.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Runs `f` on a thread of the pool: parallel operations inside begin there. From a thread outside, each of them would wake a
/// thread of the pool and wait for it, and data would wander from one core's cache to another's.
pub(crate) fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

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
    match units() {
        #[cfg(target_arch = "x86_64")]
        Units::Bf16(avx512) | Units::Tiles(avx512) => {
            // SAFETY: `Units::widest` found all of these features.
            unsafe { with_bf16(avx512, op) }
        }
        Units::Plain(arch) => arch.dispatch(op),
    }
}

/// Runs an operation that only CPUs with products of pairs of bf16, or with tiles, are asked for: it is compiled for them alone.
/// Copies of products for the other units took a fifth of the time to compile this crate.
///
/// # Panics
/// On other CPUs.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn dispatch_bf16<Op: WithSimd>(op: Op) -> Op::Output {
    match units() {
        // SAFETY: `Units::widest` found all of these features.
        Units::Bf16(avx512) | Units::Tiles(avx512) => unsafe { with_bf16(avx512, op) },
        Units::Plain(_) => panic!("products of pairs need AVX512-BF16, which `has_bf16` tells"),
    }
}

/// Whether kernels are compiled with the CPU's own bf16 instructions: conversions, and products of pairs.
#[inline(always)]
pub(crate) fn has_bf16() -> bool {
    !matches!(units(), Units::Plain(_))
}

/// Whether kernels may use AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn has_avx512() -> bool {
    matches!(
        units(),
        Units::Tiles(_) | Units::Bf16(_) | Units::Plain(Arch::V4(_))
    )
}

/// Whether products of pairs of bf16, and the larger ones of f32, run on tile registers.
#[inline(always)]
pub(crate) fn has_tiles() -> bool {
    #[cfg(target_arch = "x86_64")]
    return matches!(units(), Units::Tiles(_));
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// What kernels are compiled for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Units {
    /// AVX-512 with AVX512-BF16, which `pulp` does not know.
    #[cfg(target_arch = "x86_64")]
    Bf16(pulp::x86::V4),
    /// The same with AMX.
    #[cfg(target_arch = "x86_64")]
    Tiles(pulp::x86::V4),
    /// One of `pulp`'s.
    Plain(Arch),
}

impl Units {
    fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = pulp::x86::V4::try_new()
            && std::arch::is_x86_feature_detected!("avx512bf16")
        {
            return if tiles::are_available() {
                Self::Tiles(avx512)
            } else {
                Self::Bf16(avx512)
            };
        }
        Self::Plain(Arch::new())
    }
}

#[inline(always)]
fn units() -> Units {
    static UNITS: OnceLock<Units> = OnceLock::new();
    #[cfg(test)]
    if let Some(units) = FORCED.get() {
        return units;
    }
    *UNITS.get_or_init(Units::widest)
}

/// The features of `pulp`'s V4 and AVX512-BF16: what is inlined here may use both.
#[cfg(target_arch = "x86_64")]
#[target_feature(
    enable = "sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2,fma,lzcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16"
)]
fn with_bf16<Op: WithSimd>(avx512: pulp::x86::V4, op: Op) -> Op::Output {
    op.with_simd(avx512)
}

#[cfg(test)]
thread_local! {
    /// What the kernels of this thread run on instead of the widest units.
    static FORCED: std::cell::Cell<Option<Units>> = const { std::cell::Cell::new(None) };
}

/// Calls `f` on two threads whose kernels run on `units`.
#[cfg(test)]
pub(crate) fn with_units<R: Send>(units: Units, f: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .start_handler(move |_| FORCED.set(Some(units)))
        .build();
    pool.expect("a pool").install(f)
}

/// The units of this CPU other than the widest ones.
#[cfg(test)]
pub(crate) fn narrower_units() -> Vec<Units> {
    let mut narrower = vec![Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    {
        narrower.extend(pulp::x86::V3::try_new().map(Arch::V3));
        narrower.extend(has_bf16().then(Arch::new));
    }
    narrower.into_iter().map(Units::Plain).collect()
}

/// The units of this CPU that multiply pairs of bf16.
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) fn bf16_units() -> Vec<Units> {
    match Units::widest() {
        Units::Plain(_) => Vec::new(),
        Units::Bf16(avx512) => vec![Units::Bf16(avx512)],
        Units::Tiles(avx512) => vec![Units::Tiles(avx512), Units::Bf16(avx512)],
    }
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
        _ if has_tiles() => "AVX-512 with bf16 and AMX",
        _ if has_bf16() => "AVX-512 with bf16",
        16 => "AVX-512",
        8 => "AVX2",
        4 => "NEON",
        _ => "no vector unit",
    }
}

/// Asks for a cache line that will be needed soon.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which any address may be given to.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
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
    fn what_runs_on_the_pool_stays_on_one_of_its_threads() {
        assert_eq!(rayon::current_thread_index(), None);
        let threads = on_pool(|| {
            let outer = rayon::current_thread_index();
            [outer, on_pool(rayon::current_thread_index)]
        });
        assert!(threads[0].is_some());
        assert_eq!(threads[0], threads[1]);
    }

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
