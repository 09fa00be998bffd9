//! f32 cut into three bf16, in the layout of tiles: step by step of the inner dimension the parts of a square, the largest
//! first, each with its rows one behind the other. Steps are filled up with zeros.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_or_si512,
    _mm512_permutex2var_epi16, _mm512_set1_epi32, _mm512_srli_epi32, _mm512_sub_ps,
};
use std::ops::Range;

use super::SIDE;
use super::registers::TILE;
use crate::ops::square::{Square, transposed};

/// Parts of a factor.
pub(super) const PARTS: usize = 3;
/// Factors of the inner dimension that a tile holds, in pairs.
pub(super) const STEP: usize = 2 * TILE;

/// A vector of f32 or words.
type Line = [f32; TILE];

/// The parts of `[rows, inner]` factors whose rows are contiguous and `stride` apart.
#[inline(always)]
pub(super) fn cut_rows(words: &[f32], stride: usize, [rows, inner]: [usize; 2], parts: &mut [f32]) {
    let (parts, _) = parts.as_chunks_mut::<TILE>();
    for (step, parts) in parts.chunks_exact_mut(PARTS * SIDE).enumerate() {
        let first = step * STEP;
        let depth = STEP.min(inner - first);
        for row in 0..rows {
            let source = &words[row * stride + first..][..depth];
            let mut padded = [0.0; STEP];
            let factors = match source.first_chunk::<STEP>() {
                Some(factors) => factors,
                None => {
                    padded[..depth].copy_from_slice(source);
                    &padded
                }
            };
            let [low, high] = factors.as_chunks().0 else {
                unreachable!("a step has two vectors")
            };
            put(row_parts([low, high]), row, parts);
        }
    }
}

/// The parts of `[rows, inner]` factors whose columns are contiguous and `stride` apart.
#[inline(always)]
pub(super) fn cut_columns(
    words: &[f32],
    stride: usize,
    [rows, inner]: [usize; 2],
    parts: &mut [f32],
) {
    let (parts, _) = parts.as_chunks_mut::<TILE>();
    for (step, parts) in parts.chunks_exact_mut(PARTS * SIDE).enumerate() {
        for row in (0..rows).step_by(TILE) {
            let height = TILE.min(rows - row);
            let first = step * STEP;
            let low = rows_of(words, stride, [row, height], first..inner);
            let high = rows_of(words, stride, [row, height], first + TILE..inner);
            for (index, (low, high)) in low.iter().zip(&high).enumerate() {
                put(row_parts([low, high]), row + index, parts);
            }
        }
    }
}

/// Rows from the columns of a range, or from as many as a square has.
#[inline(always)]
fn rows_of(
    words: &[f32],
    stride: usize,
    [row, height]: [usize; 2],
    columns: Range<usize>,
) -> Square {
    let mut square = [[0.0; TILE]; TILE];
    for (column, line) in columns.zip(&mut square) {
        let source = &words[column * stride + row..][..height];
        match source.first_chunk() {
            Some(source) => *line = *source,
            None => line[..height].copy_from_slice(source),
        }
    }
    transposed(&square)
}

/// The parts of `[inner, width]` factors of a panel, whose rows are contiguous and `stride` apart.
#[inline(always)]
pub(super) fn cut_panel(
    words: &[f32],
    stride: usize,
    [inner, width]: [usize; 2],
    parts: &mut [f32],
) {
    let (parts, _) = parts.as_chunks_mut::<TILE>();
    for (step, parts) in parts.chunks_exact_mut(PARTS * SIDE).enumerate() {
        for pair in 0..TILE {
            let first = step * STEP + 2 * pair;
            for column in (0..width).step_by(TILE) {
                let line = |row: usize| -> Line {
                    if row < inner {
                        *words[row * stride + column..]
                            .first_chunk()
                            .expect("padded to whole vectors")
                    } else {
                        [0.0; TILE]
                    }
                };
                let place = 2 * pair + column / TILE;
                put(pair_parts(&[line(first), line(first + 1)]), place, parts);
            }
        }
    }
}

/// Puts each part in its place of a step.
#[inline(always)]
fn put(lines: [Line; PARTS], place: usize, parts: &mut [Line]) {
    let (parts, _) = parts.as_chunks_mut::<SIDE>();
    for (part, line) in parts.iter_mut().zip(lines) {
        part[place] = line;
    }
}

/// The parts of 32 factors in their order, two a word.
#[inline(always)]
fn row_parts([low, high]: [&Line; 2]) -> [Line; PARTS] {
    // The upper half of every f32, of the first vector and of the second.
    const UPPER: [u16; STEP] = {
        let mut places = [0; STEP];
        let mut index = 0;
        while index < STEP {
            places[index] = 2 * index as u16 + 1;
            index += 1;
        }
        places
    };
    // SAFETY: where there are tiles there is AVX-512 with all of its parts; vectors and arrays have the same size.
    unsafe {
        let upper = std::mem::transmute::<[u16; STEP], __m512i>(UPPER);
        let (low, high) = (cut(low), cut(high));
        let mut parts = [[0.0; TILE]; PARTS];
        for (part, (low, high)) in parts.iter_mut().zip(low.into_iter().zip(high)) {
            *part = as_line(_mm512_permutex2var_epi16(low, upper, high));
        }
        parts
    }
}

/// The parts of sixteen pairs of factors, of which one vector has the first ones and another the second ones.
#[inline(always)]
fn pair_parts([first, second]: &[Line; 2]) -> [Line; PARTS] {
    // SAFETY: as above.
    unsafe {
        let (first, second) = (cut(first), cut(second));
        let mut parts = [[0.0; TILE]; PARTS];
        for (part, (first, second)) in parts.iter_mut().zip(first.into_iter().zip(second)) {
            let first = _mm512_srli_epi32::<16>(first);
            *part = as_line(_mm512_or_si512(first, upper_half(second)));
        }
        parts
    }
}

/// Three vectors of which the upper halves count, as bf16.
///
/// # Safety
/// The CPU must have AVX-512.
#[inline(always)]
unsafe fn cut(line: &Line) -> [__m512i; PARTS] {
    // SAFETY: the caller promises the instructions; vectors and arrays have the same size.
    unsafe {
        let whole = std::mem::transmute::<Line, __m512>(*line);
        let first = upper_half(_mm512_castps_si512(whole));
        let rest = _mm512_sub_ps(whole, _mm512_castsi512_ps(first));
        let second = upper_half(_mm512_castps_si512(rest));
        let third = _mm512_sub_ps(rest, _mm512_castsi512_ps(second));
        [first, second, _mm512_castps_si512(third)]
    }
}

/// # Safety
/// The CPU must have AVX-512.
#[inline(always)]
unsafe fn upper_half(words: __m512i) -> __m512i {
    // SAFETY: as the caller promises.
    unsafe { _mm512_and_si512(words, _mm512_set1_epi32(!0xFFFF)) }
}

#[inline(always)]
fn as_line(words: __m512i) -> Line {
    // SAFETY: both are sixteen words, of which any bits are valid.
    unsafe { std::mem::transmute::<__m512i, Line>(words) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::lanes::has_avx512;

    /// The factor whose parts are in the lower or upper halves of words.
    fn sum(parts: [u32; PARTS], half: u32) -> f32 {
        let [first, second, third] = parts.map(|word| f32::from_bits((word >> (16 * half)) << 16));
        first + (second + third)
    }

    fn factor(index: usize) -> f32 {
        let bits = (index as u32 + 1).wrapping_mul(2_654_435_761);
        // Exponents from 2⁻⁹⁰ to 2¹²⁷, all signs and significands.
        let exponent = 37 + bits % 218;
        f32::from_bits(bits & 0x807F_FFFF | exponent << 23)
    }

    /// The word of each part at a line of a step.
    fn words(parts: &[f32], step: usize, line: usize, lane: usize) -> [u32; PARTS] {
        [0, 1, 2].map(|part| {
            let place = ((step * PARTS + part) * SIDE + line) * TILE + lane;
            parts[place].to_bits()
        })
    }

    /// More than any row or column below has.
    const STRIDE: usize = 80;

    #[test]
    fn parts_add_up_to_the_bit_in_the_places_of_tiles() {
        if !has_avx512() {
            return;
        }
        let factors: Vec<f32> = (0..STRIDE * STRIDE).map(factor).collect();
        for [rows, inner] in [[32_usize, 32], [32, 64], [20, 45], [3, 16], [16, 33]] {
            let steps = inner.div_ceil(STEP);
            let mut parts = vec![f32::NAN; 3 * steps * PARTS * SIDE * TILE];
            let (by_row, rest) = parts.split_at_mut(steps * PARTS * SIDE * TILE);
            let (by_column, panel) = rest.split_at_mut(by_row.len());
            cut_rows(&factors, STRIDE, [rows, inner], by_row);
            cut_columns(&factors, STRIDE, [rows, inner], by_column);
            cut_panel(&factors, STRIDE, [inner, SIDE], panel);
            let at = |k: usize, place: usize| if k < inner { factors[place] } else { 0.0 };
            for k in 0..steps * STEP {
                let (step, pair, half) = (k / STEP, k % STEP / 2, k as u32 % 2);
                for row in 0..rows {
                    let found =
                        [&*by_row, by_column].map(|parts| sum(words(parts, step, row, pair), half));
                    assert_eq!(
                        found,
                        [at(k, row * STRIDE + k), at(k, k * STRIDE + row)],
                        "{row}, {k}"
                    );
                }
                for column in 0..SIDE {
                    let found = words(panel, step, 2 * pair + column / TILE, column % TILE);
                    assert_eq!(
                        sum(found, half),
                        at(k, k * STRIDE + column),
                        "{k}, {column}"
                    );
                }
            }
        }
    }
}
