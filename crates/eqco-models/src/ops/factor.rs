//! What matrix products multiply: f32, or bf16 in pairs that one instruction multiplies and adds.
//!
//! Either is handled in words of 32 bits, so that kernels and layouts are the same: a product of `[rows, words]` with
//! `[words, columns]` where each word holds one f32, or two bf16 that are neighbours along the inner dimension.

use pulp::Simd;

use super::element::Element;

/// An element that products take as it is. Words are kept in f32 slices, whose values mean nothing then.
pub trait Factor: Element<Factor = Self> {
    /// Factors a word.
    const DEPTH: usize;

    /// sum + Σ left·right over the factors of each word.
    fn multiply_add<S: Simd>(simd: S, left: S::f32s, right: S::f32s, sum: S::f32s) -> S::f32s;
    /// Whole words, where the slice is a number of them and aligned like them.
    fn as_words(factors: &[Self]) -> Option<&[f32]>;
    /// The factors that words have room for.
    fn of_words(words: &mut [f32]) -> &mut [Self];
    /// Words from the factors at the same places of [`DEPTH`](Self::DEPTH) rows; only the first row counts where that is 1.
    fn interleave(rows: [&[Self]; 2], words: &mut [f32]);
    /// Stores a vector as one factor of each word; the first clears the others.
    fn put<S: Simd>(simd: S, value: S::f32s, place: usize, words: &mut [f32]);
}

/// Words that hold `count` factors.
pub(crate) fn words<F: Factor>(count: usize) -> usize {
    count.div_ceil(F::DEPTH)
}

impl Factor for f32 {
    const DEPTH: usize = 1;

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, left: S::f32s, right: S::f32s, sum: S::f32s) -> S::f32s {
        simd.mul_add_e_f32s(left, right, sum)
    }

    #[inline(always)]
    fn as_words(factors: &[Self]) -> Option<&[f32]> {
        Some(factors)
    }

    #[inline(always)]
    fn of_words(words: &mut [f32]) -> &mut [Self] {
        words
    }

    #[inline(always)]
    fn interleave([row, _]: [&[Self]; 2], words: &mut [f32]) {
        words.copy_from_slice(row);
    }

    #[inline(always)]
    fn put<S: Simd>(simd: S, value: S::f32s, _: usize, words: &mut [f32]) {
        Self::store_vector(simd, value, words);
    }
}
