//! Squares of sixteen by sixteen words: rows from columns.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_shuffle_f32x4, _mm512_unpackhi_pd,
    _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

/// Rows and columns.
pub(crate) const SIDE: usize = 16;

/// A square of words.
pub(crate) type Square = [[f32; SIDE]; SIDE];

/// The square with its rows as columns.
#[inline(always)]
pub(crate) fn transposed(square: &Square) -> Square {
    #[cfg(target_arch = "x86_64")]
    if super::lanes::has_avx512() {
        // SAFETY: the CPU has been found to have AVX-512.
        return unsafe { wide(square) };
    }
    std::array::from_fn(|row| std::array::from_fn(|column| square[column][row]))
}

/// # Safety
/// The CPU must have AVX-512.
#[inline]
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn wide(square: &Square) -> Square {
    // SAFETY: both are sixteen vectors of sixteen f32.
    let rows = unsafe { std::mem::transmute::<Square, [__m512; SIDE]>(*square) };
    let mut quads = rows;
    for (quads, rows) in quads
        .as_chunks_mut::<4>()
        .0
        .iter_mut()
        .zip(rows.as_chunks::<4>().0)
    {
        let [a, b, c, d] = *rows;
        let halves = [
            [_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d)],
            [_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d)],
        ];
        for (quads, half) in quads.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
            let [ab, cd] = half.map(|half| _mm512_castps_pd(half));
            quads[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
            quads[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
        }
    }
    // quads[4 g + c] holds, in its lane l, the elements 4 g .. 4 g + 4 of column 4 l + c.
    let mut columns = quads;
    for column in 0..4 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|group| quads[4 * group + column]);
        let even = [
            _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d),
        ];
        let odd = [
            _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d),
        ];
        columns[column] = _mm512_shuffle_f32x4::<0b10_00_10_00>(even[0], even[1]);
        columns[8 + column] = _mm512_shuffle_f32x4::<0b11_01_11_01>(even[0], even[1]);
        columns[4 + column] = _mm512_shuffle_f32x4::<0b10_00_10_00>(odd[0], odd[1]);
        columns[12 + column] = _mm512_shuffle_f32x4::<0b11_01_11_01>(odd[0], odd[1]);
    }
    // SAFETY: both are sixteen vectors of sixteen f32.
    unsafe { std::mem::transmute::<[__m512; SIDE], Square>(columns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let square: Square =
            std::array::from_fn(|row| std::array::from_fn(|column| (row * 100 + column) as f32));
        let found = transposed(&square);
        for (row, line) in found.iter().enumerate() {
            for (column, value) in line.iter().enumerate() {
                assert_eq!(*value, (column * 100 + row) as f32, "at {row}, {column}");
            }
        }
    }
}
