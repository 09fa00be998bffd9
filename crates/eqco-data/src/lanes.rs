//! Loops compiled for the vector units of this CPU.

use pulp::Arch;

/// Runs `kernel` compiled for the widest vector unit of this CPU (AVX-512, AVX2, NEON, or the baseline): the same results on
/// each, to the bit, since Rust neither reorders nor fuses operations on floats.
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
    #[cfg(test)]
    if let Some(arch) = FORCED.get() {
        return arch.dispatch(Kernel(kernel));
    }
    Arch::new().dispatch(Kernel(kernel))
}

/// Whether what is written for AVX2 may run.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn has_avx2() -> bool {
    #[cfg(test)]
    if matches!(FORCED.get(), Some(Arch::Scalar)) {
        return false;
    }
    std::arch::is_x86_feature_detected!("avx2")
}

/// What `value as u8` is: cut off, and 0 or 255 beyond these. On vectors this is a third of the time of the cast.
#[inline(always)]
pub(crate) fn saturated(value: f32) -> u8 {
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    // SAFETY: 0 to 255; comparisons have turned NaN into 0.
    unsafe { value.to_int_unchecked::<i32>() as u8 }
}

#[cfg(test)]
thread_local! {
    static FORCED: std::cell::Cell<Option<Arch>> = const { std::cell::Cell::new(None) };
}

/// What `f` returns on each of the CPU's vector units, the portable form first.
#[cfg(test)]
pub(crate) fn on_every_unit<R>(f: impl Fn() -> R) -> Vec<R> {
    let mut units = vec![Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    units.extend(pulp::x86::V3::try_new().map(Arch::V3));
    units.push(Arch::new());
    let results = units.into_iter().map(|unit| {
        FORCED.set(Some(unit));
        let result = f();
        FORCED.set(None);
        result
    });
    results.collect()
}
