//! Antialiased bilinear resizing of a region, bit for bit as Pillow does it.
//!
//! A separable triangle filter whose support grows with the scale when the image shrinks ("area
//! sampling"). Each axis is a table of a few fixed-point weights per output pixel, computed once a
//! call; the rows of the region are resampled first, then the columns, with 8 bits between.
//! Nothing outside the region is read: torchvision crops first and resizes then.

use std::ops::Range;

use super::Scratch;
use crate::Image;

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
        Self {
            left: 0,
            top: 0,
            width: image.width(),
            height: image.height(),
        }
    }
}

/// The weights of one axis, and the rows between the two passes.
#[derive(Debug, Default)]
pub(super) struct ResampleScratch {
    columns: Axis,
    rows: Axis,
    between: Vec<u8>,
    sums: Vec<i32>,
}

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
        between,
        sums,
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
    let source = image.pixels().chunks_exact(image.width() * 3);
    let source = source.skip(region.top + reach.start).take(reach.len());
    for (target, row) in between.chunks_exact_mut(stride).zip(source) {
        let row = &row[region.left * 3..(region.left + region.width) * 3];
        // An axis that keeps its size is copied: its weights are 1 and 0.
        if region.width == size.0 {
            target.copy_from_slice(&row[window.left * 3..][..stride]);
        } else {
            resample_row(row, columns, target);
        }
    }
    if region.height == size.1 {
        let skipped = window.top - reach.start;
        out.copy_from_slice(&between[skipped * stride..][..out.len()]);
    } else {
        resample_columns(between, rows, reach.start, sums, out);
    }
}

/// One row through the table: each output pixel is a weighted sum of `taps` neighbours.
fn resample_row(row: &[u8], axis: &Axis, target: &mut [u8]) {
    for (pixel, (start, weights)) in target.chunks_exact_mut(3).zip(axis.windows()) {
        let mut sums = [HALF; 3];
        let neighbours = row[start * 3..].chunks_exact(3);
        for (neighbour, &weight) in neighbours.zip(weights) {
            for channel in 0..3 {
                sums[channel] += i32::from(neighbour[channel]) * weight;
            }
        }
        for channel in 0..3 {
            pixel[channel] = to_byte(sums[channel]);
        }
    }
}

/// All rows through the table: each output row is a weighted sum of input rows, of which `rows`
/// holds those from `first_row` on.
fn resample_columns(
    rows: &[u8],
    axis: &Axis,
    first_row: usize,
    sums: &mut Vec<i32>,
    out: &mut [u8],
) {
    let stride = out.len() / axis.starts.len();
    sums.resize(stride, 0);
    for (target, (start, weights)) in out.chunks_exact_mut(stride).zip(axis.windows()) {
        sums.fill(HALF);
        let neighbours = rows[(start - first_row) * stride..].chunks_exact(stride);
        for (row, &weight) in neighbours.zip(weights) {
            if weight != 0 {
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += i32::from(value) * weight;
                }
            }
        }
        for (value, &sum) in target.iter_mut().zip(sums.iter()) {
            *value = to_byte(sum);
        }
    }
}

/// From fixed point to a byte.
#[inline]
fn to_byte(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}
