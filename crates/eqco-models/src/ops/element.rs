//! The number formats that activations may be stored in. Kernels load an element as f32, compute, and store with one
//! rounding; they are written once, for any [`Element`].

use candle_core::{CpuStorage, DType, Result};
use half::bf16;
use pulp::{Simd, WithSimd};

use super::factor::Factor;
use super::lanes::{dispatch, vectorized};
use super::scratch::with_scratch;

/// A stored element. Conversions are branch-free integer arithmetic, so that loops over them vectorise on any CPU.
pub trait Element: Copy + Send + Sync + 'static {
    /// What products take of it: itself, or its exact value in f32.
    type Factor: Factor;
    /// The tensor type that holds such elements.
    const DTYPE: DType;
    /// Positive zero.
    const ZERO: Self;

    /// The exact value.
    fn load(self) -> f32;
    /// The nearest element; ties go to the even one, too large values to infinity, and a NaN stays one.
    fn store(value: f32) -> Self;
    /// The first elements of `source`, a vector of them.
    fn load_vector<S: Simd>(simd: S, source: &[Self]) -> S::f32s;
    /// Overwrites the first elements of `target`, a vector of them.
    fn store_vector<S: Simd>(simd: S, value: S::f32s, target: &mut [Self]);
    /// Runs a kernel on such elements, for the widest vector unit of this CPU.
    #[inline(always)]
    fn dispatch<Op: WithSimd>(kernel: Op) -> Op::Output {
        dispatch(kernel)
    }
    /// Overwrites `target` with the values, which are as many.
    #[inline(always)]
    fn store_all(values: &[f32], target: &mut [Self]) {
        for (target, value) in target.iter_mut().zip(values) {
            *target = Self::store(*value);
        }
    }
    /// The elements as factors, where they are.
    fn as_factors(source: &[Self]) -> Option<&[Self::Factor]>;
    /// Overwrites `target` with the factors of `source`.
    fn copy_factors(source: &[Self], target: &mut [Self::Factor]);
    /// Calls `f` with the values of `source`, widened into scratch memory where they are not f32.
    fn with_widened<R>(source: &[Self], f: impl FnOnce(&[f32]) -> R) -> R {
        widened(source, f)
    }
    /// Lets `f` compute into f32, and stores what it computed with one rounding. Its second argument is whether to add to
    /// what its target holds; with `accumulate` the result is added to `target`.
    fn with_target(target: &mut [Self], accumulate: bool, f: impl FnOnce(&mut [f32], bool)) {
        narrowed(target, accumulate, f);
    }
    /// The elements of a storage of this type.
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
    /// The elements of a storage of this type, to be overwritten.
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

impl Element for f32 {
    type Factor = Self;
    const DTYPE: DType = DType::F32;
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn load(self) -> f32 {
        self
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn load_vector<S: Simd>(_: S, source: &[Self]) -> S::f32s {
        S::as_simd_f32s(&source[..S::F32_LANES]).0[0]
    }

    #[inline(always)]
    fn store_vector<S: Simd>(_: S, value: S::f32s, target: &mut [Self]) {
        S::as_mut_simd_f32s(&mut target[..S::F32_LANES]).0[0] = value;
    }

    #[inline(always)]
    fn as_factors(source: &[Self]) -> Option<&[Self]> {
        Some(source)
    }

    #[inline(always)]
    fn copy_factors(source: &[Self], target: &mut [Self]) {
        target.copy_from_slice(source);
    }

    #[inline(always)]
    fn with_widened<R>(source: &[Self], f: impl FnOnce(&[f32]) -> R) -> R {
        f(source)
    }

    #[inline(always)]
    fn with_target(target: &mut [Self], accumulate: bool, f: impl FnOnce(&mut [f32], bool)) {
        f(target, accumulate);
    }

    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        match storage {
            CpuStorage::F32(values) => Some(values),
            _ => None,
        }
    }

    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F32(values) => Some(values),
            _ => None,
        }
    }
}

impl Element for bf16 {
    type Factor = f32;
    const DTYPE: DType = DType::BF16;
    const ZERO: Self = bf16::ZERO;

    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        const QUIET: u32 = 0x0040;
        let bits = value.to_bits();
        // Adds just under half a unit of the last kept bit, and just half where that bit is odd.
        let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
        // Cutting off a NaN's low bits could leave an infinity.
        let cut = (bits >> 16) | QUIET;
        let is_nan = (bits & 0x7FFF_FFFF) > 0x7F80_0000;
        bf16::from_bits(if is_nan { cut } else { rounded } as u16)
    }

    #[inline(always)]
    fn load_vector<S: Simd>(_: S, source: &[Self]) -> S::f32s {
        let mut values = [0.0; MOST_LANES];
        for (value, element) in values[..S::F32_LANES].iter_mut().zip(source) {
            *value = element.load();
        }
        S::as_simd_f32s(&values[..S::F32_LANES]).0[0]
    }

    #[inline(always)]
    fn store_vector<S: Simd>(_: S, value: S::f32s, target: &mut [Self]) {
        let mut values = [0.0; MOST_LANES];
        S::as_mut_simd_f32s(&mut values[..S::F32_LANES]).0[0] = value;
        for (element, value) in target[..S::F32_LANES].iter_mut().zip(values) {
            *element = Self::store(value);
        }
    }

    #[inline(always)]
    fn as_factors(_: &[Self]) -> Option<&[f32]> {
        None
    }

    #[inline(always)]
    fn copy_factors(source: &[Self], target: &mut [f32]) {
        load_all(source, target);
    }

    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        match storage {
            CpuStorage::BF16(values) => Some(values),
            _ => None,
        }
    }

    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::BF16(values) => Some(values),
            _ => None,
        }
    }
}

/// Elements of the widest vector.
pub(crate) const MOST_LANES: usize = 16;

/// [`Element::with_widened`] through scratch memory.
fn widened<T: Element, R>(source: &[T], f: impl FnOnce(&[f32]) -> R) -> R {
    with_scratch(source.len(), |widened| {
        vectorized(
            #[inline(always)]
            || load_all(source, widened),
        );
        f(widened)
    })
}

/// [`Element::with_target`] through scratch memory.
fn narrowed<T: Element>(target: &mut [T], accumulate: bool, f: impl FnOnce(&mut [f32], bool)) {
    with_scratch(target.len(), |computed| {
        f(computed, false);
        vectorized(
            #[inline(always)]
            || store_sums(computed, target, accumulate),
        );
    });
}

/// Widens elements, one by one.
#[inline(always)]
pub(crate) fn load_all<T: Element>(source: &[T], target: &mut [f32]) {
    for (target, source) in target.iter_mut().zip(source) {
        *target = source.load();
    }
}

/// Stores values, or their sums with what is there.
#[inline(always)]
pub(crate) fn store_sums<T: Element>(source: &[f32], target: &mut [T], accumulate: bool) {
    if !accumulate {
        return T::store_all(source, target);
    }
    let mut sums = [0.0; BLOCK];
    for (target, source) in target.chunks_mut(BLOCK).zip(source.chunks(BLOCK)) {
        let sums = &mut sums[..target.len()];
        for ((sum, target), source) in sums.iter_mut().zip(&*target).zip(source) {
            *sum = target.load() + source;
        }
        T::store_all(sums, target);
    }
}

/// Sums that are held in registers at a time.
const BLOCK: usize = 32;

/// Evaluates `$body` with the type `$element` set to the [`Element`] of `$dtype` on this CPU. `$body` is compiled once for
/// each.
macro_rules! for_element {
    ($dtype:expr, $element:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $element = f32;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            candle_core::DType::BF16 if $crate::ops::lanes::has_bf16() => {
                type $element = $crate::ops::native_bf16::NativeBf16;
                $body
            }
            candle_core::DType::BF16 => {
                type $element = half::bf16;
                $body
            }
            other => candle_core::bail!("expected f32 or bf16 activations, found {other:?}"),
        }
    };
}
pub(crate) use for_element;

/// Something to be done with the [`Element`] of a number format.
pub trait ElementVisitor {
    /// What comes of it.
    type Output;
    /// Does it with elements of `T`.
    fn visit<T: Element>(self) -> Self::Output;
}

/// Calls the visitor with the element of `dtype` that kernels use on this CPU.
///
/// # Errors
/// For a type other than f32 and bf16.
pub fn visit_element<V: ElementVisitor>(dtype: DType, visitor: V) -> Result<V::Output> {
    for_element!(dtype, T => Ok(visitor.visit::<T>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bf16_pattern_survives_a_round_trip_and_equals_the_half_crate() {
        for bits in 0..=u16::MAX {
            let element = bf16::from_bits(bits);
            assert_eq!(
                element.load().to_bits(),
                u32::from(bits) << 16,
                "a bf16 is the upper half of an f32"
            );
            assert_eq!(element.load().is_nan(), element.is_nan());
            if !element.is_nan() {
                assert_eq!(element.load(), element.to_f32());
            }
            let quiet = if element.is_nan() {
                bits | 0x0040
            } else {
                bits
            };
            assert_eq!(bf16::store(element.load()).to_bits(), quiet);
        }
    }

    #[test]
    fn rounding_equals_the_half_crate_around_every_bf16_value() {
        // Around each value: itself, its nearest neighbours, both sides of the tie, the tie, and the last before the next.
        for upper in 0..=u32::from(u16::MAX) {
            for lower in [0, 1, 0x1234, 0x7FFF, 0x8000, 0x8001, 0xABCD, 0xFFFF] {
                let value = f32::from_bits(upper << 16 | lower);
                let (found, expected) = (bf16::store(value), bf16::from_f32(value));
                assert_eq!(
                    found.to_bits(),
                    expected.to_bits(),
                    "{:#x}",
                    value.to_bits()
                );
            }
        }
    }

    #[test]
    fn ties_go_to_even_overflow_to_infinity_and_nan_stays() {
        let stored = |bits: u32| bf16::store(f32::from_bits(bits)).to_bits();
        assert_eq!(
            stored(0x3F80_8000),
            0x3F80,
            "1 + 2^-8 lies between 1 and 1 + 2^-7"
        );
        assert_eq!(stored(0x3F81_8000), 0x3F82);
        assert_eq!(bf16::store(f32::MAX).to_bits(), 0x7F80);
        assert_eq!(bf16::store(f32::MIN).to_bits(), 0xFF80);
        assert_eq!(bf16::store(-0.0).to_bits(), 0x8000);
        // All of this NaN's mantissa lies in the bits that are cut off.
        assert!(bf16::store(f32::from_bits(0x7F80_0001)).is_nan());
        assert_eq!(f32::store(0.1), 0.1);
    }
}
