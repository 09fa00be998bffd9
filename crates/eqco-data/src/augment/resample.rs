//! Antialiased bilinear resizing of a region, bit for bit as Pillow does it.
//!
//! A separable triangle filter whose support grows with the scale when the image shrinks ("area
//! sampling"). Each axis is a table of a few fixed-point weights per output pixel, computed once a
//! call; the rows of the region are resampled first, then the columns, with 8 bits between.
//! Nothing outside the region is read: torchvision crops first and resizes then.

use std::ops::Range;

use super::Scratch;
use crate::Image;
use crate::lanes::vectorized;

/// Fraction bits of a weight: 8 bits of pixel and 2 of headroom are left of 32 (Pillow's choice).
const WEIGHT_BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (WEIGHT_BITS - 1);

/// A rectangle inside an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns, at least one.
    pub width: usize,
    /// Rows, at least one.
    pub height: usize,
}

impl Region {
    /// The whole image.
    pub fn whole(image: &Image) -> Self {
        Self::of((image.width(), image.height()))
    }

    /// The whole of an image of `(width, height)` pixels.
    pub(crate) fn of((width, height): (usize, usize)) -> Self {
        Self {
            left: 0,
            top: 0,
            width,
            height,
        }
    }

    /// The smallest region that holds both.
    pub(crate) fn around(self, other: Self) -> Self {
        let (left, top) = (self.left.min(other.left), self.top.min(other.top));
        let right = (self.left + self.width).max(other.left + other.width);
        let bottom = (self.top + self.height).max(other.top + other.height);
        Self {
            left,
            top,
            width: right - left,
            height: bottom - top,
        }
    }

    /// The same region in an image of which only `part`, which holds it, is there.
    pub(crate) fn within(self, part: Self) -> Self {
        Self {
            left: self.left - part.left,
            top: self.top - part.top,
            ..self
        }
    }
}

/// The weights of one axis, and the rows between the two passes.
#[derive(Debug, Default)]
pub(super) struct ResampleScratch {
    columns: Axis,
    rows: Axis,
    /// Rows side by side, each pixel in four bytes.
    band: Vec<[u8; BAND * 4]>,
    resampled: Vec<[u8; BAND * 4]>,
    between: Vec<u8>,
}

/// Rows that the first pass takes at a time: their pixels fill a vector of 32-bit sums.
const BAND: usize = 4;

/// Bytes of a row that the second pass takes at a time.
const STRETCH: usize = 96;

/// For each output pixel of one axis: where its input pixels begin and their weights.
#[derive(Debug, Default)]
struct Axis {
    /// First input pixel of each output pixel.
    starts: Vec<usize>,
    /// `taps` weights for each output pixel; unused ones at the end are zero.
    weights: Vec<i32>,
    /// Weights per output pixel, never more than the input has pixels.
    taps: usize,
    /// Floating-point weights of the pixel at hand.
    exact: Vec<f64>,
}

impl Axis {
    /// Fills the table for the output pixels in `window` of `input` pixels resampled to `output`.
    fn prepare(&mut self, input: usize, output: usize, window: Range<usize>) {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        self.taps = input.min(2 * stretch.ceil() as usize + 1);
        self.starts.clear();
        self.weights.clear();
        for position in window {
            let center = (position as f64 + 0.5) * scale;
            let first = (center - stretch + 0.5).max(0.0) as usize;
            let end = ((center + stretch + 0.5) as usize).min(input);
            self.exact.clear();
            self.exact.extend((first..end).map(|pixel| {
                let distance = (pixel as f64 - center + 0.5) / stretch;
                (1.0 - distance.abs()).max(0.0)
            }));
            self.push_weights(first, input);
        }
    }

    /// Appends the normalised weights in `exact`, for input pixels from `first` on.
    ///
    /// The window is moved left where `taps` weights would reach past the input's end, so that the
    /// inner loops read a fixed number of pixels.
    fn push_weights(&mut self, first: usize, input: usize) {
        let start = first.min(input - self.taps);
        let total: f64 = self.exact.iter().sum();
        let one = f64::from(1u32 << WEIGHT_BITS);
        let row = self.weights.len();
        self.starts.push(start);
        self.weights.resize(row + self.taps, 0);
        for (weight, exact) in self.weights[row + first - start..]
            .iter_mut()
            .zip(&self.exact)
        {
            *weight = (exact / total * one + 0.5) as i32;
        }
    }

    /// Start and weights of each output pixel.
    #[inline(always)]
    fn windows(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.starts
            .iter()
            .copied()
            .zip(self.weights.chunks_exact(self.taps))
    }

    /// The input pixels that are read at all.
    fn reach(&self) -> Range<usize> {
        let first = self.starts.first().copied().unwrap_or(0);
        first..self.starts.last().map_or(first, |last| last + self.taps)
    }
}

/// Crops `region` out of `image` and resizes it to `size` (width, height) in `out`
/// (RGB, `[height, width, 3]`), as torchvision's `resized_crop` with antialiased bilinear
/// interpolation.
///
/// # Panics
/// If the region does not lie inside the image or `out` has another length.
pub fn resized_crop(
    image: &Image,
    region: Region,
    size: (usize, usize),
    scratch: &mut Scratch,
    out: &mut [u8],
) {
    let window = Region {
        left: 0,
        top: 0,
        width: size.0,
        height: size.1,
    };
    resized_window(image, region, size, window, scratch, out);
}

/// Resizes `region` of `image` to `size`, but computes only the part `window` of the result:
/// the same bytes as resizing first and cropping then, without the work and the memory.
pub(crate) fn resized_window(
    image: &Image,
    region: Region,
    size: (usize, usize),
    window: Region,
    scratch: &mut Scratch,
    out: &mut [u8],
) {
    assert!(region.left + region.width <= image.width());
    assert!(region.top + region.height <= image.height());
    assert!(window.left + window.width <= size.0 && window.top + window.height <= size.1);
    assert_eq!(out.len(), window.width * window.height * 3);
    let ResampleScratch {
        columns,
        rows,
        band,
        resampled,
        between,
    } = &mut scratch.resample;
    columns.prepare(
        region.width,
        size.0,
        window.left..window.left + window.width,
    );
    rows.prepare(
        region.height,
        size.1,
        window.top..window.top + window.height,
    );

    let reach = rows.reach();
    let stride = window.width * 3;
    between.resize(reach.len() * stride, 0);
    let first = region.top + reach.start;
    let image_stride = image.width() * 3;
    let source = &image.pixels()[first * image_stride..][..reach.len() * image_stride];
    let part = region.left * 3..(region.left + region.width) * 3;
    // An axis that keeps its size is copied: its weights are 1 and 0.
    if region.width == size.0 {
        let source = source.chunks_exact(image_stride);
        for (target, row) in between.chunks_exact_mut(stride).zip(source) {
            target.copy_from_slice(&row[part.clone()][window.left * 3..][..stride]);
        }
    } else {
        vectorized(
            #[inline(always)]
            || {
                resample_rows(
                    source,
                    image_stride,
                    part,
                    columns,
                    (band, resampled),
                    between,
                )
            },
        );
    }
    if region.height == size.1 {
        let skipped = window.top - reach.start;
        out.copy_from_slice(&between[skipped * stride..][..out.len()]);
    } else {
        vectorized(
            #[inline(always)]
            || resample_columns(between, rows, reach.start, out),
        );
    }
}

/// All rows through the table: each output pixel is a weighted sum of `taps` neighbours. `part` is what is read of each row of
/// `source`, which are `source_stride` bytes apart.
///
/// [`BAND`] rows go side by side, so that a weight meets a whole vector of values.
#[inline(always)]
fn resample_rows(
    source: &[u8],
    source_stride: usize,
    part: Range<usize>,
    axis: &Axis,
    (band, resampled): (&mut Vec<[u8; BAND * 4]>, &mut Vec<[u8; BAND * 4]>),
    target: &mut [u8],
) {
    let stride = axis.starts.len() * 3;
    band.resize(part.len() / 3, [0; BAND * 4]);
    resampled.resize(axis.starts.len(), [0; BAND * 4]);
    let targets = target.chunks_mut(stride * BAND);
    for (rows, targets) in source.chunks(source_stride * BAND).zip(targets) {
        for (place, row) in rows.chunks_exact(source_stride).enumerate() {
            to_band(&row[part.clone()], place, band);
        }
        for (result, (start, weights)) in resampled.iter_mut().zip(axis.windows()) {
            let mut sums = [HALF; BAND * 4];
            for (values, &weight) in band[start..].iter().zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum += i32::from(value) * weight;
                }
            }
            *result = to_bytes(&sums);
        }
        for (place, target) in targets.chunks_exact_mut(stride).enumerate() {
            from_band(resampled, place, target);
        }
    }
}

/// Copies a row of pixels of three bytes to its place in the band. The fourth byte is the next pixel's: copies of four bytes are
/// quicker, and what is summed of it is forgotten.
#[inline(always)]
fn to_band(row: &[u8], place: usize, band: &mut [[u8; BAND * 4]]) {
    for (x, values) in band.iter_mut().enumerate() {
        let values = &mut values.as_chunks_mut::<4>().0[place];
        match row[x * 3..].first_chunk::<4>() {
            Some(pixel) => *values = *pixel,
            None => values[..3].copy_from_slice(&row[x * 3..]),
        }
    }
}

/// Copies a row of the band back.
#[inline(always)]
fn from_band(band: &[[u8; BAND * 4]], place: usize, row: &mut [u8]) {
    for (pixel, values) in row.as_chunks_mut::<3>().0.iter_mut().zip(band) {
        let [red, green, blue, _] = values.as_chunks::<4>().0[place];
        *pixel = [red, green, blue];
    }
}

/// All columns through the table: each output row is a weighted sum of input rows, of which `rows` holds those from
/// `first_row` on. A stretch of a row stays in registers until all weights are through.
#[inline(always)]
fn resample_columns(rows: &[u8], axis: &Axis, first_row: usize, out: &mut [u8]) {
    let stride = out.len() / axis.starts.len();
    for (target, (start, weights)) in out.chunks_exact_mut(stride).zip(axis.windows()) {
        let neighbours = &rows[(start - first_row) * stride..];
        let (stretches, rest) = target.as_chunks_mut::<STRETCH>();
        for (number, stretch) in stretches.iter_mut().enumerate() {
            *stretch = sums_of_column(neighbours, stride, number * STRETCH, weights);
        }
        let done = stride - rest.len();
        for (at, value) in (done..).zip(rest) {
            [*value] = sums_of_column(neighbours, stride, at, weights);
        }
    }
}

/// `N` weighted sums from column `at` on.
#[inline(always)]
fn sums_of_column<const N: usize>(
    rows: &[u8],
    stride: usize,
    at: usize,
    weights: &[i32],
) -> [u8; N] {
    let mut sums = [HALF; N];
    for (row, &weight) in rows.chunks_exact(stride).zip(weights) {
        if let Some(values) = row[at..].first_chunk::<N>() {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += i32::from(value) * weight;
            }
        }
    }
    to_bytes(&sums)
}

/// [`to_byte`] of each. The array's own `map` may stay a call, and then is not compiled for the vector unit.
#[inline(always)]
fn to_bytes<const N: usize>(sums: &[i32; N]) -> [u8; N] {
    let mut bytes = [0; N];
    for (byte, &sum) in bytes.iter_mut().zip(sums) {
        *byte = to_byte(sum);
    }
    bytes
}

/// From fixed point to a byte.
#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}
