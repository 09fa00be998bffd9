//! Rows of tiles from columns.

use super::super::Left;
use super::registers::TILE;
use crate::ops::square::transposed;

/// Copies `[rows, inner]` words whose columns are contiguous row by row, `row_stride` apart. Rows and their words are filled
/// up with zeros to whole tiles.
pub(crate) fn transpose(
    left: &Left<'_>,
    rows: usize,
    inner: usize,
    row_stride: usize,
    target: &mut [f32],
) {
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
            for (index, line) in transposed(&square).iter().enumerate() {
                target[(row + index) * row_stride + first..][..TILE].copy_from_slice(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_columns_filled_up_with_zeros() {
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
