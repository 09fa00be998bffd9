//! From the products of transformed tiles back to a map, for one block of tile rows.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::layout::{BLOCK, BLOCK_WORDS, Layout};
use super::tiling::Tiling;
use super::transforms::{IN, OUT, both_ways, output_line};
use crate::ops::element::Element;

/// Products of some output channels, in the layout of f32 tiles.
pub(super) struct OutputTiles<'a, T> {
    pub(super) tiling: &'a Tiling,
    pub(super) rows: Range<usize>,
    pub(super) products: &'a [f32],
    pub(super) first_channel: usize,
    pub(super) width: usize,
    /// The output lines of `rows`, all channels.
    pub(super) y: &'a mut [T],
    pub(super) accumulate: bool,
}

impl<T: Element> OutputTiles<'_, T> {
    /// y (+)= AᵀmA.
    pub(super) fn run(self) {
        let tiles = self.rows.len() * self.tiling.columns;
        let layout = Layout::of_tiles::<f32>(self.width);
        // What the unchecked loads and stores below rely on.
        assert_eq!(self.products.len(), layout.len(tiles));
        assert!(self.width.is_multiple_of(BLOCK));
        assert!(self.first_channel + self.width <= self.tiling.geometry().out_channels);
        T::dispatch(self);
    }
}

impl<T: Element> WithSimd for OutputTiles<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let stride = Layout::of_tiles::<f32>(self.width).stride();
        let mut start = 0;
        for row in self.rows.clone() {
            for column in (0..self.tiling.columns).map(|column| column * OUT) {
                let place = self.place(row, column);
                for channel in (0..self.width).step_by(S::F32_LANES) {
                    let block = start + channel / BLOCK * BLOCK_WORDS + channel % BLOCK;
                    // SAFETY: `run` checked that all tiles are there.
                    let points = unsafe { self.load(simd, block) };
                    let square = both_ways::<S, IN, OUT>(
                        simd,
                        points,
                        #[inline(always)]
                        |line| output_line(simd, line),
                    );
                    self.store(simd, square, place, channel);
                }
                start += stride;
            }
        }
    }
}

/// Where the pixels of a tile go.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    /// Rows and columns of it that lie inside of the map.
    rows: usize,
    columns: usize,
}

impl<T: Element> OutputTiles<'_, T> {
    #[inline(always)]
    unsafe fn load<S: Simd>(&self, simd: S, block: usize) -> [[S::f32s; IN]; IN] {
        let mut points = [[simd.splat_f32s(0.0); IN]; IN];
        for (index, value) in points.as_flattened_mut().iter_mut().enumerate() {
            // SAFETY: a block has a vector for each of the 36 points.
            *value = unsafe {
                let source = self.products.as_ptr().add(block + index * BLOCK);
                source.cast::<S::f32s>().read_unaligned()
            };
        }
        points
    }

    #[inline(always)]
    fn place(&self, row: usize, column: usize) -> Place {
        let geometry = self.tiling.geometry();
        let (_, line) = self.tiling.place(row);
        let first = self.tiling.output_start(row) - self.tiling.output_start(self.rows.start);
        let place = Place {
            start: first + column * geometry.out_channels + self.first_channel,
            rows: OUT.min(geometry.out_height() - line),
            columns: OUT.min(geometry.out_width() - column),
        };
        let last = (place.rows - 1) * geometry.out_width() + place.columns - 1;
        assert!(place.start + last * geometry.out_channels + self.width <= self.y.len());
        place
    }

    /// Writes the pixels that lie inside of the map.
    #[inline(always)]
    fn store<S: Simd>(
        &mut self,
        simd: S,
        square: [[S::f32s; OUT]; OUT],
        place: Place,
        channel: usize,
    ) {
        let geometry = self.tiling.geometry();
        let (width, channels) = (geometry.out_width(), geometry.out_channels);
        let start = place.start + channel;
        if place.rows == OUT && place.columns == OUT {
            // Bounds that are known keep the square in registers.
            for (dy, values) in square.into_iter().enumerate() {
                for (dx, value) in values.into_iter().enumerate() {
                    // SAFETY: `place` checked the last of these pixels.
                    unsafe { self.store_pixel(simd, value, start + (dy * width + dx) * channels) };
                }
            }
            return;
        }
        for (dy, values) in square.iter().enumerate().take(place.rows) {
            for (dx, value) in values.iter().enumerate().take(place.columns) {
                // SAFETY: as above.
                unsafe { self.store_pixel(simd, *value, start + (dy * width + dx) * channels) };
            }
        }
    }

    /// # Safety
    /// The vector must end within the output.
    #[inline(always)]
    unsafe fn store_pixel<S: Simd>(&mut self, simd: S, value: S::f32s, offset: usize) {
        debug_assert!(offset + S::F32_LANES <= self.y.len());
        // SAFETY: as the caller promises.
        let target = unsafe { self.y.get_unchecked_mut(offset..offset + S::F32_LANES) };
        let value = if self.accumulate {
            simd.add_f32s(T::load_vector(simd, target), value)
        } else {
            value
        };
        T::store_vector(simd, value, target);
    }
}
