//! Rows of tiles from columns.

use std::arch::x86_64::{
    __m512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_shuffle_f32x4, _mm512_unpackhi_pd,
    _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::mem::transmute;

use super::super::Left;
use super::registers::{TILE, are_available};

/// Copies `[rows, inner]` words whose columns are contiguous row by row, `row_stride` apart. Rows and their words are filled
/// up with zeros to whole tiles.
///
/// # Panics
/// Where tiles are not available, or `target` is too short.
pub(crate) fn transpose(
    left: &Left<'_>,
    rows: usize,
    inner: usize,
    row_stride: usize,
    target: &mut [f32],
) {
    assert!(
        are_available(),
        "tiles come with the instructions that this takes"
    );
    let Left {
        words,
        column_stride,
        ..
    } = *left;
    for row in (0..rows).step_by(TILE) {
        let height = TILE.min(rows - row);
        for first in (0..inner).step_by(TILE) {
            let mut square = [[0.0; TILE]; TILE];
            let columns = TILE.min(inner - first);
            for (index, line) in square[..columns].iter_mut().enumerate() {
                let source = &words[(first + index) * column_stride + row..];
                if height == TILE {
                    line.copy_from_slice(&source[..TILE]);
                } else {
                    line[..height].copy_from_slice(&source[..height]);
                }
            }
            // SAFETY: tiles are available, which CPUs with AVX-512 alone have.
            let square = unsafe { transposed(square) };
            for (index, line) in square.iter().enumerate() {
                target[(row + index) * row_stride + first..][..TILE].copy_from_slice(line);
            }
        }
    }
}

/// # Safety
/// The CPU must have AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transposed(square: [[f32; TILE]; TILE]) -> [[f32; TILE]; TILE] {
    // SAFETY: both are sixteen vectors of sixteen f32.
    let rows = unsafe { transmute::<[[f32; TILE]; TILE], [__m512; TILE]>(square) };
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
    unsafe { transmute::<[__m512; TILE], [[f32; TILE]; TILE]>(columns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_columns_filled_up_with_zeros() {
        if !are_available() {
            return println!("this CPU has no AMX: nothing was tested");
        }
        for (rows, inner) in [(1, 1), (16, 16), (20, 37), (48, 5)] {
            let words: Vec<f32> = (0..inner * rows).map(|value| 1.0 + value as f32).collect();
            let left = Left {
                words: &words,
                row_stride: 1,
                column_stride: rows,
            };
            let stride = inner.next_multiple_of(TILE);
            let mut found = vec![f32::NAN; rows.next_multiple_of(TILE) * stride];
            transpose(&left, rows, inner, stride, &mut found);
            for (place, found) in found.into_iter().enumerate() {
                let (row, column) = (place / stride, place % stride);
                let is_inside = row < rows && column < inner;
                let expected = if is_inside {
                    words[column * rows + row]
                } else {
                    0.0
                };
                assert_eq!(found, expected, "{rows}x{inner} at {row}, {column}");
            }
        }
    }
}
