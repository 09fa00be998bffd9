//! From maps to transformed tiles and back, for one block of tile rows.
//!
//! Transformed arrays are `[36, tiles, channels]`: the products of one point of all tiles are one matrix product. Where that
//! product sums over tiles, the factors of a word are of neighbouring tiles: `[36, tiles / depth, channels]` words.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::tiling::Tiling;
use super::transforms::{
    IN, OUT, POINTS, both_ways, input_line, output_gradient_line, output_line,
};
use crate::ops::element::Element;
use crate::ops::factor::{Factor, words};
use crate::ops::lanes::dispatch;

/// What the factors of a word are neighbours in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    OfChannels,
    OfTiles,
}

/// Words that the points of `tiles` tiles take.
pub(super) fn points_len<F: Factor>(tiles: usize, channels: usize, kind: Words) -> usize {
    POINTS
        * match kind {
            Words::OfChannels => tiles * words::<F>(channels),
            Words::OfTiles => words::<F>(tiles) * channels,
        }
}

/// BᵀdB of every 6x6 patch of the input; zero outside of the map.
pub(super) fn transform_input<T: Element, F: Factor>(
    tiling: &Tiling,
    rows: Range<usize>,
    x: &[T],
    kind: Words,
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
    map.check(geometry.batch);
    let points = Points::<F>::new(transformed, kind, rows.len() * tiling.columns, map.channels);
    dispatch(InputTiles(Tiles { tiling, rows, map }, points));
}

/// A·dy·Aᵀ of every 4x4 tile of the output's gradient, in words of tiles; zero outside of the map.
pub(super) fn transform_output_gradient<T: Element, F: Factor>(
    tiling: &Tiling,
    rows: Range<usize>,
    dy: &[T],
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
    map.check(geometry.batch);
    let points = Points::<F>::new(
        transformed,
        Words::OfTiles,
        rows.len() * tiling.columns,
        map.channels,
    );
    dispatch(OutputGradientTiles(Tiles { tiling, rows, map }, points));
}

/// A map of the batch that tiles are read from.
struct Map<'a, T> {
    values: &'a [T],
    height: usize,
    width: usize,
    channels: usize,
    padding: usize,
}

impl<T> Map<'_, T> {
    /// What the unchecked loads below rely on.
    fn check(&self, batch: usize) {
        assert_eq!(
            self.values.len(),
            batch * self.height * self.width * self.channels
        );
        assert!(self.channels.is_multiple_of(16));
    }

    /// The first element of a square that lies inside of the map, given its first output line and column.
    #[inline(always)]
    fn inside<const SIDE: usize>(
        &self,
        (image, line): (usize, usize),
        column: usize,
    ) -> Option<usize> {
        let y = line.wrapping_sub(self.padding);
        let x = column.wrapping_sub(self.padding);
        let fits = |start: usize, side: usize| start <= side && SIDE <= side - start;
        (fits(y, self.height) && fits(x, self.width))
            .then(|| ((image * self.height + y) * self.width + x) * self.channels)
    }

    /// The vectors of channels from `channel` of a square that [`inside`](Self::inside) found.
    #[inline(always)]
    fn load_inside<S: Simd, const SIDE: usize>(
        &self,
        simd: S,
        start: usize,
        channel: usize,
    ) -> [[S::f32s; SIDE]; SIDE]
    where
        T: Element,
    {
        let mut square = [[simd.splat_f32s(0.0); SIDE]; SIDE];
        for (dy, row) in square.iter_mut().enumerate() {
            for (dx, value) in row.iter_mut().enumerate() {
                let offset = start + (dy * self.width + dx) * self.channels + channel;
                // SAFETY: the square lies inside of the map, `check` made sure that the map has as many elements as it
                // says and whole vectors of channels, and channel is that of a whole vector.
                *value = T::load_vector(simd, unsafe {
                    std::slice::from_raw_parts(self.values.as_ptr().add(offset), S::F32_LANES)
                });
            }
        }
        square
    }

    /// The pixels of a square whose first output line and column are given; `zeros` (one pixel) outside of the map.
    #[inline(always)]
    fn pixels<'p, const SIDE: usize>(
        &'p self,
        (image, line): (usize, usize),
        column: usize,
        zeros: &'p [T],
    ) -> [[&'p [T]; SIDE]; SIDE] {
        let mut pixels = [[zeros; SIDE]; SIDE];
        for (dy, row) in pixels.iter_mut().enumerate() {
            let y = (line + dy).wrapping_sub(self.padding);
            if y >= self.height {
                continue;
            }
            let start = (image * self.height + y) * self.width;
            for (dx, pixel) in row.iter_mut().enumerate() {
                let x = (column + dx).wrapping_sub(self.padding);
                if x < self.width {
                    *pixel = &self.values[(start + x) * self.channels..][..self.channels];
                }
            }
        }
        pixels
    }
}

/// The vector of channels from `channel` of every pixel.
#[inline(always)]
fn load<S: Simd, T: Element, const SIDE: usize>(
    simd: S,
    pixels: &[[&[T]; SIDE]; SIDE],
    channel: usize,
) -> [[S::f32s; SIDE]; SIDE] {
    let mut square = [[simd.splat_f32s(0.0); SIDE]; SIDE];
    for (row, pixels) in square.iter_mut().zip(pixels) {
        for (value, pixel) in row.iter_mut().zip(pixels) {
            // SAFETY: every pixel has `channels` elements, a multiple of the vector length, and channel is below it.
            *value = T::load_vector(simd, unsafe {
                std::slice::from_raw_parts(pixel.as_ptr().add(channel), S::F32_LANES)
            });
        }
    }
    square
}

/// Tiles to be transformed from a map.
struct Tiles<'a, T> {
    tiling: &'a Tiling,
    rows: Range<usize>,
    map: Map<'a, T>,
}

impl<T: Element> Tiles<'_, T> {
    /// Transforms squares of `SIDE` pixels into `target`.
    #[inline(always)]
    fn transform<S: Simd, F: Factor, const SIDE: usize>(
        self,
        simd: S,
        line: impl Fn([S::f32s; SIDE]) -> [S::f32s; IN] + Copy,
        mut target: Points<'_, F>,
    ) {
        let channels = self.map.channels;
        let zeros = vec![T::ZERO; channels];
        let mut tile = 0;
        for row in self.rows {
            let place = self.tiling.place(row);
            for column in (0..self.tiling.columns).map(|column| column * OUT) {
                // Most squares lie inside of the map: one address instead of one a pixel.
                if let Some(start) = self.map.inside::<SIDE>(place, column) {
                    for channel in (0..channels).step_by(S::F32_LANES) {
                        let square = self.map.load_inside(simd, start, channel);
                        let points = both_ways::<S, SIDE, IN>(simd, square, line);
                        target.store(simd, points, tile, channel);
                    }
                } else {
                    let pixels = self.map.pixels::<SIDE>(place, column, &zeros);
                    for channel in (0..channels).step_by(S::F32_LANES) {
                        let square = load(simd, &pixels, channel);
                        let points = both_ways::<S, SIDE, IN>(simd, square, line);
                        target.store(simd, points, tile, channel);
                    }
                }
                tile += 1;
            }
        }
    }
}

/// Where transformed tiles are written.
struct Points<'a, F> {
    words: &'a mut [f32],
    kind: Words,
    channels: usize,
    factor: PhantomData<F>,
}

impl<'a, F: Factor> Points<'a, F> {
    fn new(words: &'a mut [f32], kind: Words, tiles: usize, channels: usize) -> Self {
        // What the unchecked stores below rely on.
        assert_eq!(words.len(), points_len::<F>(tiles, channels, kind));
        Self {
            words,
            kind,
            channels,
            factor: PhantomData,
        }
    }

    /// Writes the 36 points of one tile, from `channel`.
    #[inline(always)]
    fn store<S: Simd>(
        &mut self,
        simd: S,
        points: [[S::f32s; IN]; IN],
        tile: usize,
        channel: usize,
    ) {
        let plane = self.words.len() / POINTS;
        let start = self.words.as_mut_ptr();
        match self.kind {
            Words::OfChannels => {
                let place = tile * self.channels + channel;
                for (index, value) in points.as_flattened().iter().enumerate() {
                    // SAFETY: `new` made sure of 36 planes of whole vectors; the place is that of one within a plane.
                    let target = unsafe {
                        let start = start.add(index * plane).cast::<F>();
                        std::slice::from_raw_parts_mut(start.add(place), S::F32_LANES)
                    };
                    F::store_vector(simd, *value, target);
                }
            }
            Words::OfTiles => {
                let place = tile / F::DEPTH * self.channels + channel;
                for (index, value) in points.as_flattened().iter().enumerate() {
                    // SAFETY: as above.
                    let target = unsafe {
                        let start = start.add(index * plane + place);
                        std::slice::from_raw_parts_mut(start, S::F32_LANES)
                    };
                    F::put(simd, *value, tile % F::DEPTH, target);
                }
            }
        }
    }
}

struct InputTiles<'a, T, F>(Tiles<'a, T>, Points<'a, F>);

impl<T: Element, F: Factor> WithSimd for InputTiles<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.transform::<S, F, IN>(
            simd,
            #[inline(always)]
            |line| input_line(simd, line),
            self.1,
        );
    }
}

struct OutputGradientTiles<'a, T, F>(Tiles<'a, T>, Points<'a, F>);

impl<T: Element, F: Factor> WithSimd for OutputGradientTiles<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.transform::<S, F, OUT>(
            simd,
            #[inline(always)]
            |line| output_gradient_line(simd, line),
            self.1,
        );
    }
}

/// Products `[36, tiles, width]` of the output channels from `first_channel`.
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
        assert_eq!(self.products.len(), POINTS * tiles * self.width);
        assert!(self.width.is_multiple_of(16));
        dispatch(self);
    }
}

impl<T: Element> WithSimd for OutputTiles<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let plane = self.rows.len() * self.tiling.columns * self.width;
        let mut tile = 0;
        for row in self.rows.clone() {
            for column in 0..self.tiling.columns {
                for channel in (0..self.width).step_by(S::F32_LANES) {
                    let points = self.load(simd, plane, tile * self.width + channel);
                    let square = both_ways::<S, IN, OUT>(
                        simd,
                        points,
                        #[inline(always)]
                        |line| output_line(simd, line),
                    );
                    self.store(
                        simd,
                        square,
                        row,
                        column * OUT,
                        self.first_channel + channel,
                    );
                }
                tile += 1;
            }
        }
    }
}

impl<T: Element> OutputTiles<'_, T> {
    #[inline(always)]
    fn load<S: Simd>(&self, simd: S, plane: usize, offset: usize) -> [[S::f32s; IN]; IN] {
        let mut points = [[simd.splat_f32s(0.0); IN]; IN];
        for (index, value) in points.as_flattened_mut().iter_mut().enumerate() {
            // SAFETY: `run` checked that there are 36 planes; the offset is that of a whole vector within a plane.
            *value = unsafe {
                self.products
                    .as_ptr()
                    .add(index * plane + offset)
                    .cast::<S::f32s>()
                    .read_unaligned()
            };
        }
        points
    }

    /// Writes the pixels that lie inside of the map.
    #[inline(always)]
    fn store<S: Simd>(
        &mut self,
        simd: S,
        square: [[S::f32s; OUT]; OUT],
        row: usize,
        column: usize,
        channel: usize,
    ) {
        let geometry = self.tiling.geometry();
        let (height, width, channels) = (
            geometry.out_height(),
            geometry.out_width(),
            geometry.out_channels,
        );
        let start = self.tiling.output_start(row) - self.tiling.output_start(self.rows.start);
        let (_, line) = self.tiling.place(row);
        let start = start + column * channels + channel;
        if line + OUT <= height && column + OUT <= width {
            // Bounds that are known keep the square in registers.
            for (dy, values) in square.into_iter().enumerate() {
                for (dx, value) in values.into_iter().enumerate() {
                    self.store_pixel(simd, value, start + (dy * width + dx) * channels);
                }
            }
            return;
        }
        for (dy, values) in square.iter().enumerate().take(height - line) {
            for (dx, value) in values.iter().enumerate().take(width - column) {
                self.store_pixel(simd, *value, start + (dy * width + dx) * channels);
            }
        }
    }

    #[inline(always)]
    fn store_pixel<S: Simd>(&mut self, simd: S, value: S::f32s, offset: usize) {
        let target = &mut self.y[offset..][..S::F32_LANES];
        let value = if self.accumulate {
            simd.add_f32s(T::load_vector(simd, target), value)
        } else {
            value
        };
        T::store_vector(simd, value, target);
    }
}
