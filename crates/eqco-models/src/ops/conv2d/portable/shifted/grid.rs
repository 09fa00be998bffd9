//! The grid that zero-padded images lie on.

use std::ops::Range;

use super::super::super::Geometry;
use crate::ops::element::Element;
use crate::ops::factor::Factor;
use crate::ops::lanes::vectorized;
use crate::ops::product::Left;
use crate::ops::product::tiles::{Places, TILE, transpose};
use crate::ops::scratch::with_scratch;

/// Bytes of a grid that stays in the second-level cache beside the weights.
const GRID_BYTES: usize = 1 << 18;

/// Where images lie: each has `padding` places beyond every line, and `padding` lines beyond its last. As many lines and
/// places of padding come before the first image.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) height: usize,
    pub(super) width: usize,
    padding: usize,
    pub(super) channels: usize,
}

impl Grid {
    pub(super) fn new(geometry: &Geometry, channels: usize) -> Self {
        Self {
            height: geometry.height,
            width: geometry.width,
            padding: geometry.padding,
            channels,
        }
    }

    pub(super) fn kernel(&self) -> usize {
        2 * self.padding + 1
    }

    /// Taps of a line of the kernel: what they read is whole tiles.
    pub(super) fn taps(&self) -> usize {
        let tile = 2 * TILE;
        let whole = |taps: &usize| (taps * self.channels).is_multiple_of(tile);
        (self.kernel()..).find(whole).unwrap_or(self.kernel())
    }

    /// Elements of a source image.
    pub(super) fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Places of a line.
    pub(super) fn pitch(&self) -> usize {
        self.width + self.padding
    }

    /// Places of an image.
    pub(super) fn places(&self) -> usize {
        (self.height + self.padding) * self.pitch()
    }

    /// Places before the first image.
    pub(super) fn lead(&self) -> usize {
        self.padding * (self.pitch() + 1)
    }

    /// Places of so many images and of all that taps read around them.
    pub(super) fn len(&self, images: usize) -> usize {
        2 * self.lead() + images * self.places() + self.taps() - self.kernel()
    }

    /// Images whose grid stays in cache, at most an even share.
    pub(super) fn images_of_a_task<T: Element>(&self, images: usize) -> usize {
        let bytes = self.places() * self.channels * size_of::<T>();
        let even_share = images.div_ceil(rayon::current_num_threads());
        (GRID_BYTES / bytes).clamp(1, even_share.max(1))
    }

    /// Copies images to the grid, all of which is written.
    pub(super) fn fill<T: Element>(&self, source: &[T], grid: &mut [T::Factor]) {
        vectorized(
            #[inline(always)]
            || {
                let line = self.pitch() * self.channels;
                let image = self.places() * self.channels;
                let (lead, images) = grid.split_at_mut(self.lead() * self.channels);
                lead.fill(T::Factor::ZERO);
                let mut images = images.chunks_exact_mut(image);
                for source in source.chunks_exact(self.image()) {
                    let Some(image) = images.next() else { break };
                    let (lines, padding) = image.split_at_mut(self.height * line);
                    let pixels = source.chunks_exact(self.width * self.channels);
                    for (line, pixels) in lines.chunks_exact_mut(line).zip(pixels) {
                        let (inside, outside) = line.split_at_mut(pixels.len());
                        T::copy_factors(pixels, inside);
                        outside.fill(T::Factor::ZERO);
                    }
                    padding.fill(T::Factor::ZERO);
                }
                for image in images.by_ref() {
                    image.fill(T::Factor::ZERO);
                }
                images.into_remainder().fill(T::Factor::ZERO);
            },
        );
    }
}

/// Grids as pairs of neighbouring places, which a word holds.
impl Grid {
    /// One row of words for every place.
    pub(super) fn pairs<T: Element>(&self, source: &[T], words: &mut [f32]) {
        let count = words.len() + self.channels;
        with_scratch(count.div_ceil(T::Factor::DEPTH), |grid| {
            let grid = &mut T::Factor::of_words(grid)[..count];
            self.fill(source, grid);
            let next = &grid[self.channels..];
            vectorized(
                #[inline(always)]
                || T::Factor::interleave([grid, next], words),
            );
        });
    }

    /// `[channels, pairs]` words of the places from the first image on.
    pub(super) fn pairs_by_channel<T: Element>(
        &self,
        source: &[T],
        pairs: usize,
        words: &mut [f32],
    ) {
        let channels = self.channels;
        let places = self.lead() + 2 * pairs;
        with_scratch(
            (places * channels).div_ceil(2) + pairs * channels,
            |scratch| {
                let (grid, interleaved) = scratch.split_at_mut((places * channels).div_ceil(2));
                let grid = &mut T::Factor::of_words(grid)[..places * channels];
                self.fill(source, grid);
                vectorized(
                    #[inline(always)]
                    || {
                        let rows = grid[self.lead() * channels..].chunks_exact(2 * channels);
                        for (row, words) in rows.zip(interleaved.chunks_exact_mut(channels)) {
                            let (first, second) = row.split_at(channels);
                            T::Factor::interleave([first, second], words);
                        }
                    },
                );
                let by_pair = Left {
                    words: interleaved,
                    row_stride: 1,
                    column_stride: channels,
                };
                transpose(&by_pair, channels, pairs, pairs, words);
            },
        );
    }
}

/// Pixels in the order of their places.
impl Places for Grid {
    const ARE_ROWS: bool = false;

    #[inline(always)]
    fn runs(self, rows: Range<usize>) -> impl Iterator<Item = (Range<usize>, usize)> {
        let (pitch, lines) = (self.pitch(), self.height + self.padding);
        let mut next = rows.start;
        std::iter::from_fn(move || {
            while next < rows.end {
                let (first, line, x) = (next, next / pitch, next % pitch);
                let (image, y) = (line / lines, line % lines);
                next = (line + 1) * pitch;
                if x < self.width && y < self.height {
                    let end = rows.end.min(first - x + self.width);
                    return Some((first..end, (image * self.height + y) * self.width + x));
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two images of 2x3 pixels of one channel.
    const GRID: Grid = Grid {
        height: 2,
        width: 3,
        padding: 1,
        channels: 1,
    };

    #[test]
    fn images_share_their_padding_on_the_grid() {
        let source: Vec<f32> = (1..=12).map(|value| value as f32).collect();
        let mut grid = [f32::NAN; 36];
        GRID.fill(&source, &mut grid);
        let expected = [
            [0.0; 4],
            [0.0, 1.0, 2.0, 3.0],
            [0.0, 4.0, 5.0, 6.0],
            [0.0; 4],
            [0.0, 7.0, 8.0, 9.0],
            [0.0, 10.0, 11.0, 12.0],
            [0.0; 4],
            [0.0; 4],
            [0.0; 4],
        ];
        assert_eq!(grid, *expected.as_flattened());
        // The first tap of the first pixel of either image reads the padding before it.
        assert_eq!([GRID.lead(), GRID.places()], [5, 12]);
    }

    #[test]
    fn only_pixels_have_places_in_the_target() {
        let runs = |rows| GRID.runs(rows).collect::<Vec<_>>();
        assert_eq!(runs(0..8), [(0..3, 0), (4..7, 3)]);
        assert_eq!(runs(8..12), []);
        assert_eq!(runs(7..13), [(12..13, 6)]);
        assert_eq!(runs(13..20), [(13..15, 7), (16..19, 9)]);
        assert_eq!(runs(1..2), [(1..2, 1)]);
        assert_eq!(runs(3..3), []);
    }

    #[test]
    fn lines_of_taps_are_whole_tiles() {
        let taps = |channels| Grid { channels, ..GRID }.taps();
        assert_eq!([16, 32, 48, 64].map(taps), [4, 3, 4, 3]);
    }
}
