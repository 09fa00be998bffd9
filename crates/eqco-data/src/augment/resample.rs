//! Antialiased bilinear resizing of a region, bit for bit as Pillow does it.
//!
//! A separable triangle filter whose support grows with the scale when the image shrinks ("area
//! sampling"). Each axis is a table of a few fixed-point weights per output pixel, computed once a
//! call; the rows of the region are resampled first, then the columns, with 8 bits between.
//! Nothing outside the region is read: torchvision crops first and resizes then.

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
    /// Fills the table for `input` pixels resampled to `output` pixels.
    fn prepare(&mut self, input: usize, output: usize) {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        self.taps = input.min(2 * stretch.ceil() as usize + 1);
        self.starts.clear();
        self.weights.clear();
        for position in 0..output {
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
}

/// Crops `region` out of `image` and resizes it to `width` x `height` in `out`
/// (RGB, `[height, width, 3]`), as torchvision's `resized_crop` with antialiased bilinear
/// interpolation.
///
/// # Panics
/// If the region does not lie inside the image or `out` has another length.
pub fn resized_crop(
    image: &Image,
    region: Region,
    (width, height): (usize, usize),
    scratch: &mut Scratch,
    out: &mut [u8],
) {
    assert!(region.left + region.width <= image.width());
    assert!(region.top + region.height <= image.height());
    assert_eq!(out.len(), width * height * 3);
    let scratch = &mut scratch.resample;
    let stride = image.width() * 3;
    let rows = image
        .pixels()
        .chunks_exact(stride)
        .skip(region.top)
        .take(region.height);
    let rows = rows.map(|row| &row[region.left * 3..(region.left + region.width) * 3]);

    // An axis that keeps its size is copied, as in Pillow; the weights would be 1 and 0 anyway.
    let between = if region.height == height {
        &mut *out
    } else {
        scratch.between.resize(region.height * width * 3, 0);
        &mut scratch.between[..]
    };
    if region.width == width {
        for (target, row) in between.chunks_exact_mut(width * 3).zip(rows) {
            target.copy_from_slice(row);
        }
    } else {
        scratch.columns.prepare(region.width, width);
        for (target, row) in between.chunks_exact_mut(width * 3).zip(rows) {
            resample_row(row, &scratch.columns, target);
        }
    }
    if region.height != height {
        scratch.rows.prepare(region.height, height);
        resample_columns(&scratch.between, &scratch.rows, &mut scratch.sums, out);
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

/// All rows through the table: each output row is a weighted sum of input rows.
fn resample_columns(rows: &[u8], axis: &Axis, sums: &mut Vec<i32>, out: &mut [u8]) {
    let stride = out.len() / axis.starts.len();
    sums.resize(stride, 0);
    for (target, (start, weights)) in out.chunks_exact_mut(stride).zip(axis.windows()) {
        sums.fill(HALF);
        for (row, &weight) in rows[start * stride..].chunks_exact(stride).zip(weights) {
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
