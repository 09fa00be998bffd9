//! bf16 on CPUs that convert and multiply it themselves (AVX512-BF16).
//!
//! Conversions round to nearest even as [`bf16`]'s do, but for values below f32's normal range, which become zero. A
//! product of pairs adds two exact products to an f32 sum, rounding after each.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
    _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_or_si512, _mm512_slli_epi32,
};
use std::mem::transmute_copy;

use candle_core::{CpuStorage, DType};
use half::bf16;
use pulp::{Simd, WithSimd};

use super::element::Element;
use super::factor::Factor;
use super::lanes::dispatch_bf16;

/// A [`bf16`] whose kernels use AVX512-BF16. Only on such CPUs may its vector methods be called: `for_element!` alone names
/// it, where it found the instructions.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(transparent)]
pub struct NativeBf16(bf16);

impl NativeBf16 {
    /// The same elements under this type.
    fn of(values: &[bf16]) -> &[Self] {
        // SAFETY: the types have the same representation.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
    }

    #[inline(always)]
    fn as_bf16(values: &mut [Self]) -> &mut [bf16] {
        // SAFETY: the types have the same representation.
        unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
    }

    fn of_mut(values: &mut [bf16]) -> &mut [Self] {
        // SAFETY: the types have the same representation.
        unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
    }
}

/// f32 in a vector.
const LANES: usize = 16;

/// Vectors of these kernels are AVX-512's.
#[inline(always)]
fn as_avx512<S: Simd>(vector: S::f32s) -> __m512 {
    const { assert!(size_of::<__m512>() == 64) };
    assert!(S::F32_LANES == LANES, "bf16 instructions need AVX-512");
    // SAFETY: a vector of sixteen f32 has the size of __m512, and any bits are valid in both.
    unsafe { transmute_copy(&vector) }
}

impl Element for NativeBf16 {
    type Factor = Self;
    const DTYPE: DType = DType::BF16;
    const ZERO: Self = Self(bf16::ZERO);

    /// Other CPUs have no use for such kernels, and these are not compiled for them.
    #[inline(always)]
    fn dispatch<Op: WithSimd>(kernel: Op) -> Op::Output {
        dispatch_bf16(kernel)
    }

    #[inline(always)]
    fn load(self) -> f32 {
        self.0.load()
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        Self(bf16::store(value))
    }

    #[inline(always)]
    fn load_vector<S: Simd>(simd: S, source: &[Self]) -> S::f32s {
        // SAFETY: the types have the same representation.
        let source =
            unsafe { std::slice::from_raw_parts(source.as_ptr().cast::<bf16>(), source.len()) };
        bf16::load_vector(simd, source)
    }

    #[inline(always)]
    fn store_vector<S: Simd>(simd: S, value: S::f32s, target: &mut [Self]) {
        if S::F32_LANES != LANES {
            return bf16::store_vector(simd, value, Self::as_bf16(target));
        }
        let target = &mut target[..S::F32_LANES];
        // SAFETY: kernels of this type run where the instruction exists; the target has room for sixteen elements.
        unsafe {
            let narrow: __m256bh = _mm512_cvtneps_pbh(as_avx512::<S>(value));
            target
                .as_mut_ptr()
                .cast::<__m256bh>()
                .write_unaligned(narrow);
        }
    }

    #[inline(always)]
    fn store_all(values: &[f32], target: &mut [Self]) {
        let (pairs, rest) = values.as_chunks::<{ 2 * LANES }>();
        let (target_pairs, target_rest) = target.as_chunks_mut::<{ 2 * LANES }>();
        for (target, values) in target_pairs.iter_mut().zip(pairs) {
            // SAFETY: kernels of this type run where the instruction exists; both arrays have two vectors of elements.
            unsafe {
                let values = values.as_ptr().cast::<__m512>();
                let [low, high] = [0, 1].map(|index| values.add(index).read_unaligned());
                let narrow: __m512bh = _mm512_cvtne2ps_pbh(high, low);
                let target = target.as_mut_ptr().cast::<__m512bh>();
                target.write_unaligned(narrow);
            }
        }
        let (blocks, rest) = rest.as_chunks::<LANES>();
        let (target_blocks, target_rest) = target_rest.as_chunks_mut::<LANES>();
        for (target, values) in target_blocks.iter_mut().zip(blocks) {
            // SAFETY: kernels of this type run where the instruction exists; both arrays have sixteen elements.
            unsafe {
                let values = values.as_ptr().cast::<__m512>().read_unaligned();
                let narrow: __m256bh = _mm512_cvtneps_pbh(values);
                target
                    .as_mut_ptr()
                    .cast::<__m256bh>()
                    .write_unaligned(narrow);
            }
        }
        for (target, value) in target_rest.iter_mut().zip(rest) {
            *target = Self::store(*value);
        }
    }

    #[inline(always)]
    fn as_factors(source: &[Self]) -> Option<&[Self]> {
        Some(source)
    }

    #[inline(always)]
    fn copy_factors(source: &[Self], target: &mut [Self]) {
        target.copy_from_slice(source);
    }

    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        bf16::slice(storage).map(Self::of)
    }

    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        bf16::slice_mut(storage).map(Self::of_mut)
    }
}

impl Factor for NativeBf16 {
    const DEPTH: usize = 2;

    #[inline(always)]
    fn multiply_add<S: Simd>(_: S, left: S::f32s, right: S::f32s, sum: S::f32s) -> S::f32s {
        let (left, right) = (as_avx512::<S>(left), as_avx512::<S>(right));
        // SAFETY: kernels of this type run where the instruction exists; all vectors are 64 bytes of any bits.
        unsafe {
            let left: __m512bh = transmute_copy(&left);
            let right: __m512bh = transmute_copy(&right);
            transmute_copy(&_mm512_dpbf16_ps(as_avx512::<S>(sum), left, right))
        }
    }

    #[inline(always)]
    fn as_words(factors: &[Self]) -> Option<&[f32]> {
        // SAFETY: any bits are an f32.
        match unsafe { factors.align_to::<f32>() } {
            ([], words, []) => Some(words),
            _ => None,
        }
    }

    #[inline(always)]
    fn of_words(words: &mut [f32]) -> &mut [Self] {
        // SAFETY: an f32 has room for two elements of weaker alignment, which may be any bits.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), 2 * words.len()) }
    }

    #[inline(always)]
    fn interleave([first, second]: [&[Self]; 2], words: &mut [f32]) {
        for ((word, first), second) in words.iter_mut().zip(first).zip(second) {
            let (first, second) = (u32::from(first.0.to_bits()), u32::from(second.0.to_bits()));
            *word = f32::from_bits(first | second << 16);
        }
    }

    #[inline(always)]
    fn put<S: Simd>(_: S, value: S::f32s, place: usize, words: &mut [f32]) {
        let words = words[..S::F32_LANES].as_mut_ptr().cast::<__m512i>();
        // SAFETY: kernels of this type run where the instructions exist; the words are one vector.
        unsafe {
            let narrow: __m256i = transmute_copy(&_mm512_cvtneps_pbh(as_avx512::<S>(value)));
            let wide = _mm512_cvtepu16_epi32(narrow);
            words.write_unaligned(if place == 0 {
                wide
            } else {
                _mm512_or_si512(words.read_unaligned(), _mm512_slli_epi32::<16>(wide))
            });
        }
    }
}
