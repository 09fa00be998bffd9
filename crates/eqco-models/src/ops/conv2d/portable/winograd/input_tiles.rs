//! From maps to transformed tiles, for one block of tile rows.
//!
//! The transform goes down the columns first. Columns that neighbouring tiles share are transformed once: a ring holds as
//! many as a tile is wide.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::layout::{BLOCK, Layout};
use super::tiling::Tiling;
use super::transforms::{IN, OUT, input_line, output_gradient_line};
use crate::ops::element::Element;
use crate::ops::factor::Factor;
use crate::ops::scratch::with_scratch;

/// BᵀdB of every 6x6 patch of the input; zero outside of the map.
pub(super) fn transform_input<T: Element, F: Factor>(
    tiling: &Tiling,
    rows: Range<usize>,
    x: &[T],
    layout: Layout,
    transformed: &mut [f32],
) {
    let geometry = tiling.geometry();
    let map = Map {
        values: x,
        height: geometry.height,
        width: geometry.width,
        channels: geometry.in_channels,
        padding: geometry.padding,
    };
    let tiles = Tiles::<T, F, IN>::new(tiling, rows, map, layout, transformed);
    with_scratch(tiles.ring_len(), |ring| {
        T::dispatch(InputTiles(tiles, ring))
    });
}

/// A·dy·Aᵀ of every 4x4 tile of the output's gradient; zero outside of the map.
pub(super) fn transform_output_gradient<T: Element, F: Factor>(
    tiling: &Tiling,
    rows: Range<usize>,
    dy: &[T],
    layout: Layout,
    transformed: &mut [f32],
) {
    let geometry = tiling.geometry();
    let map = Map {
        values: dy,
        height: geometry.out_height(),
        width: geometry.out_width(),
        channels: geometry.out_channels,
        padding: 0,
    };
    let tiles = Tiles::<T, F, OUT>::new(tiling, rows, map, layout, transformed);
    with_scratch(tiles.ring_len(), |ring| {
        T::dispatch(OutputGradientTiles(tiles, ring));
    });
}

/// A map of the batch that tiles are read from.
struct Map<'a, T> {
    values: &'a [T],
    height: usize,
    width: usize,
    channels: usize,
    padding: usize,
}

/// The lines of a row of tiles: where each starts, and elements from one pixel to the next. A line outside of the map is
/// one pixel of zeros.
type Lines<T, const SIDE: usize> = [(*const T, usize); SIDE];

impl<T: Element> Map<'_, T> {
    fn lines<const SIDE: usize>(
        &self,
        (image, first): (usize, usize),
        zeros: &[T],
    ) -> Lines<T, SIDE> {
        std::array::from_fn(|line| {
            let y = (first + line).wrapping_sub(self.padding);
            if y < self.height {
                let length = self.width * self.channels;
                let line = &self.values[(image * self.height + y) * length..][..length];
                (line.as_ptr(), self.channels)
            } else {
                (zeros.as_ptr(), 0)
            }
        })
    }

    /// Transforms one column of pixels, all channels: `[channels / 16, 6, 16]` of the ring.
    ///
    /// # Safety
    /// `lines` must come from [`lines`](Self::lines), and the column hold six vectors a block of channels.
    #[inline(always)]
    unsafe fn transform_column<S: Simd, const SIDE: usize>(
        &self,
        simd: S,
        lines: &Lines<T, SIDE>,
        x: usize,
        transform: impl Fn([S::f32s; SIDE]) -> [S::f32s; IN],
        column: &mut [f32],
    ) {
        let x = x.wrapping_sub(self.padding);
        if x >= self.width {
            return column.fill(0.0);
        }
        // SAFETY: a line has `width` pixels of `channels` elements, or one pixel that is not moved along; channels are
        // whole blocks.
        unsafe {
            let pixels: [*const T; SIDE] =
                std::array::from_fn(|line| lines[line].0.add(x * lines[line].1));
            for channel in (0..self.channels).step_by(S::F32_LANES) {
                let mut values = [simd.splat_f32s(0.0); SIDE];
                for (value, pixel) in values.iter_mut().zip(pixels) {
                    let pixel = std::slice::from_raw_parts(pixel.add(channel), S::F32_LANES);
                    *value = T::load_vector(simd, pixel);
                }
                let place = channel / BLOCK * IN * BLOCK + channel % BLOCK;
                let target = column.as_mut_ptr().add(place);
                for (index, value) in transform(values).into_iter().enumerate() {
                    let target = target.add(index * BLOCK).cast::<S::f32s>();
                    target.write_unaligned(value);
                }
            }
        }
    }
}

/// Tiles of `SIDE` x `SIDE` pixels to be transformed, and where they go.
struct Tiles<'a, T, F, const SIDE: usize> {
    tiling: &'a Tiling,
    rows: Range<usize>,
    map: Map<'a, T>,
    layout: Layout,
    transformed: &'a mut [f32],
    factor: PhantomData<F>,
}

impl<'a, T: Element, F: Factor, const SIDE: usize> Tiles<'a, T, F, SIDE> {
    fn new(
        tiling: &'a Tiling,
        rows: Range<usize>,
        map: Map<'a, T>,
        layout: Layout,
        transformed: &'a mut [f32],
    ) -> Self {
        // What the unchecked stores below rely on.
        assert_eq!(map.channels, layout.blocks * BLOCK);
        assert_eq!(transformed.len(), layout.len(rows.len() * tiling.columns));
        assert_eq!(layout.line * F::DEPTH, BLOCK * layout.sharing);
        Self {
            tiling,
            rows,
            map,
            layout,
            transformed,
            factor: PhantomData,
        }
    }

    /// Elements of a column of the ring.
    fn column_len(&self) -> usize {
        IN * self.map.channels
    }

    fn ring_len(&self) -> usize {
        SIDE * self.column_len()
    }

    #[inline(always)]
    fn transform<S: Simd>(
        mut self,
        simd: S,
        transform: impl Fn([S::f32s; SIDE]) -> [S::f32s; IN] + Copy,
        ring: &mut [f32],
    ) {
        let length = self.column_len();
        assert_eq!(ring.len(), SIDE * length);
        let zeros = vec![T::ZERO; self.map.channels];
        let mut tile = 0;
        for row in self.rows.clone() {
            let lines = self.map.lines(self.tiling.place(row), &zeros);
            for first in (0..self.tiling.columns).map(|column| column * OUT) {
                let known = if first == 0 { 0 } else { SIDE - OUT };
                for x in first + known..first + SIDE {
                    let column = &mut ring[x % SIDE * length..][..length];
                    // SAFETY: the lines are the map's, and the column has six elements a channel.
                    unsafe {
                        self.map
                            .transform_column(simd, &lines, x, transform, column)
                    };
                }
                let columns = std::array::from_fn(|x| (first + x) % SIDE * length);
                self.transform_rows(simd, transform, ring, columns, tile);
                tile += 1;
            }
        }
    }

    /// Finishes a tile from the columns of the ring that begin at the given places.
    #[inline(always)]
    fn transform_rows<S: Simd>(
        &mut self,
        simd: S,
        transform: impl Fn([S::f32s; SIDE]) -> [S::f32s; IN],
        ring: &[f32],
        columns: [usize; SIDE],
        tile: usize,
    ) {
        // Divisions by what the compiler knows.
        let (group, turn) = if self.layout.sharing == 1 {
            (tile, 0)
        } else {
            (tile / F::DEPTH, tile % F::DEPTH)
        };
        let start = group * self.layout.stride();
        for channel in (0..self.map.channels).step_by(S::F32_LANES) {
            let (block, lane) = (channel / BLOCK, channel % BLOCK);
            for row in 0..IN {
                let mut values = [simd.splat_f32s(0.0); SIDE];
                for (value, column) in values.iter_mut().zip(columns) {
                    let place = column + (block * IN + row) * BLOCK + lane;
                    // SAFETY: every column has six vectors for each block of channels.
                    *value = unsafe {
                        let source = ring.as_ptr().add(place).cast::<S::f32s>();
                        source.read_unaligned()
                    };
                }
                let line = start + (block * IN + row) * IN * self.layout.line;
                for (point, value) in transform(values).into_iter().enumerate() {
                    let place = line + point * self.layout.line;
                    // SAFETY: `new` made sure of the tile, which has 36 lines for each block of channels.
                    unsafe { self.put(simd, value, place, lane, turn) };
                }
            }
        }
    }

    /// Stores a vector of channels, from `lane` of their block on, into the words of their line at `place`; tiles
    /// that share words take turns.
    ///
    /// # Safety
    /// The line must lie within the array.
    #[inline(always)]
    unsafe fn put<S: Simd>(
        &mut self,
        simd: S,
        value: S::f32s,
        place: usize,
        lane: usize,
        turn: usize,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let line = self.transformed.as_mut_ptr().add(place);
            if self.layout.sharing == 1 {
                let factors = line.cast::<F>().add(lane);
                let target = std::slice::from_raw_parts_mut(factors, S::F32_LANES);
                F::store_vector(simd, value, target);
            } else {
                let target = std::slice::from_raw_parts_mut(line.add(lane), S::F32_LANES);
                F::put(simd, value, turn, target);
            }
        }
    }
}

struct InputTiles<'a, T, F>(Tiles<'a, T, F, IN>, &'a mut [f32]);

impl<T: Element, F: Factor> WithSimd for InputTiles<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.transform(
            simd,
            #[inline(always)]
            |line| input_line(simd, line),
            self.1,
        );
    }
}

struct OutputGradientTiles<'a, T, F>(Tiles<'a, T, F, OUT>, &'a mut [f32]);

impl<T: Element, F: Factor> WithSimd for OutputGradientTiles<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.transform(
            simd,
            #[inline(always)]
            |line| output_gradient_line(simd, line),
            self.1,
        );
    }
}
