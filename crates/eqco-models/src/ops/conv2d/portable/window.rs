//! What a convolution reads of its source for every pixel that it computes, and the copying of it into rows (im2col).

use std::ops::Range;

use super::super::Geometry;
use crate::ops::element::Element;
use crate::ops::factor::{Factor, words};

/// Taps over a source map, for a grid of outputs. Pixel (y, x) of the grid reads the source from
/// (y·step + origin, x·step + origin); what lies outside of the map is zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// Rows and columns of taps.
    pub(super) taps: [usize; 2],
    pub(super) step: usize,
    pub(super) origin: [isize; 2],
    /// Rows and columns of the grid.
    pub(super) grid: [usize; 2],
}

impl Window {
    /// Of the forward pass.
    pub(super) fn forward(geometry: &Geometry) -> Self {
        Self {
            height: geometry.height,
            width: geometry.width,
            channels: geometry.in_channels,
            taps: [geometry.kernel; 2],
            step: geometry.stride,
            origin: [-(geometry.padding as isize); 2],
            grid: [geometry.out_height(), geometry.out_width()],
        }
    }

    /// Elements that a pixel reads.
    pub(super) fn patch(&self) -> usize {
        self.taps[0] * self.taps[1] * self.channels
    }

    /// Elements of one source image.
    pub(super) fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether the grid is the source itself.
    pub(super) fn is_identity(&self) -> bool {
        self.taps == [1, 1]
            && self.step == 1
            && self.origin == [0, 0]
            && self.grid == [self.height, self.width]
    }

    /// Copies the patches of some lines of the grid (counted through all images) into rows of `row` factors each; what a row
    /// has beyond a patch is zero.
    #[inline(always)]
    pub(super) fn gather<T: Element>(
        &self,
        source: &[T],
        lines: Range<usize>,
        row: usize,
        rows: &mut [T::Factor],
    ) {
        let mut rows = rows.chunks_exact_mut(row);
        for line in lines {
            let (image, y) = (line / self.grid[0], line % self.grid[0]);
            let image = &source[image * self.image()..][..self.image()];
            for x in 0..self.grid[1] {
                if let Some(row) = rows.next() {
                    self.gather_patch(image, [y, x], row);
                }
            }
        }
    }

    #[inline(always)]
    fn gather_patch<T: Element>(&self, image: &[T], [y, x]: [usize; 2], row: &mut [T::Factor]) {
        let [top, left] = [
            (y * self.step) as isize + self.origin[0],
            (x * self.step) as isize + self.origin[1],
        ];
        let inside_y = inside(top, self.taps[0], self.height);
        let inside_x = inside(left, self.taps[1], self.width);
        let (patch, rest) = row.split_at_mut(self.patch());
        rest.fill(T::Factor::ZERO);
        let channels = self.channels;
        for (tap, segment) in patch.chunks_exact_mut(self.taps[1] * channels).enumerate() {
            if !inside_y.contains(&tap) || inside_x.is_empty() {
                segment.fill(T::Factor::ZERO);
                continue;
            }
            let y = (top + tap as isize) as usize;
            let x = (left + inside_x.start as isize) as usize;
            let run = inside_x.start * channels..inside_x.end * channels;
            segment[..run.start].fill(T::Factor::ZERO);
            T::copy_factors(
                &image[(y * self.width + x) * channels..][..run.len()],
                &mut segment[run.clone()],
            );
            segment[run.end..].fill(T::Factor::ZERO);
        }
    }
}

/// Taps that lie inside of a side of `len` pixels when the first lies at `start`.
#[inline(always)]
fn inside(start: isize, taps: usize, len: usize) -> Range<usize> {
    let (taps, len) = (taps as isize, len as isize);
    let first = (-start).clamp(0, taps);
    let end = (len - start).clamp(first, taps);
    first as usize..end as usize
}

/// Factors of a row that holds a patch in whole words.
pub(super) fn row_len<F: Factor>(patch: usize) -> usize {
    words::<F>(patch) * F::DEPTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_read_where_the_window_lies_and_zero_outside() {
        let window = Window {
            height: 2,
            width: 3,
            channels: 1,
            taps: [2, 2],
            step: 2,
            origin: [-1, 0],
            grid: [2, 2],
        };
        let source = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut rows = [f32::NAN; 4 * 5];
        window.gather(&source, 0..2, 5, &mut rows);
        let expected = [
            [0.0, 0.0, 1.0, 2.0, 0.0],
            [0.0, 0.0, 3.0, 0.0, 0.0],
            [4.0, 5.0, 0.0, 0.0, 0.0],
            [6.0, 0.0, 0.0, 0.0, 0.0],
        ];
        assert_eq!(rows, *expected.as_flattened());
        assert_eq!(inside(-5, 3, 4), 3..3);
        assert_eq!(inside(7, 3, 4), 0..0);
    }
}
