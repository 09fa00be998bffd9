//! Gaussian blur.

use rand_chacha::ChaCha8Rng;

use super::Scratch;
use crate::lanes::{saturated, vectorized};
use crate::random::{chance, uniform};

/// Sums that are kept in registers at a time.
const STRETCH: usize = 96;

/// Planes between the two passes.
#[derive(Debug, Default)]
pub(super) struct BlurScratch {
    /// The positive half of the kernel, centre first.
    kernel: Vec<f32>,
    /// One row with its reflected margins.
    padded: Vec<f32>,
    /// The image after the horizontal pass.
    between: Vec<f32>,
}

/// Blurs RGB bytes `[height, width, 3]` with a Gaussian of standard deviation `sigma` (in pixels)
/// on `kernel_size` x `kernel_size` pixels, as torchvision's `gaussian_blur`: weights normalised
/// to one, borders reflected without repeating the edge, result rounded.
///
/// The kernel is separable and so is the work. Weights beyond 4.5 sigma (together less than
/// 0.002 of a grey level) are left out.
///
/// # Panics
/// If `kernel_size` is even, or `rgb` is not a whole number of rows.
pub fn gaussian_blur(
    rgb: &mut [u8],
    width: usize,
    kernel_size: usize,
    sigma: f64,
    scratch: &mut Scratch,
) {
    assert!(
        kernel_size % 2 == 1,
        "the kernel size must be odd, got {kernel_size}"
    );
    assert_eq!(rgb.len() % (width * 3), 0);
    let scratch = &mut scratch.blur;
    fill_kernel(&mut scratch.kernel, kernel_size, sigma);
    let stride = width * 3;
    scratch.between.resize(rgb.len(), 0.0);
    let BlurScratch {
        kernel,
        padded,
        between,
    } = scratch;
    vectorized(
        #[inline(always)]
        || {
            let rows = rgb.chunks_exact(stride);
            for (row, target) in rows.zip(between.chunks_exact_mut(stride)) {
                blur_row(row, kernel, padded, target);
            }
            blur_columns(between, stride, kernel, rgb);
        },
    );
}

/// The centre and one half of the kernel, cut at 4.5 sigma.
fn fill_kernel(kernel: &mut Vec<f32>, kernel_size: usize, sigma: f64) {
    let half = (kernel_size / 2).min((4.5 * sigma).ceil() as usize);
    let density = |offset: usize| (-0.5 * (offset as f64 / sigma).powi(2)).exp();
    let total: f64 = 1.0 + 2.0 * (1..=half).map(density).sum::<f64>();
    kernel.clear();
    kernel.extend((0..=half).map(|offset| (density(offset) / total) as f32));
}

/// Reflects a position outside `0..length` back inside, without repeating the edge.
#[inline(always)]
fn reflect(position: isize, length: usize) -> usize {
    // Without the divisions below.
    if (0..length as isize).contains(&position) {
        return position as usize;
    }
    let period = 2 * (length as isize - 1).max(1);
    let inside = position.rem_euclid(period) as usize;
    inside.min(period as usize - inside).min(length - 1)
}

/// Horizontal pass over one row.
#[inline(always)]
fn blur_row(row: &[u8], kernel: &[f32], padded: &mut Vec<f32>, target: &mut [f32]) {
    let half = kernel.len() - 1;
    let width = row.len() / 3;
    let margin = |position: isize| {
        let start = reflect(position, width) * 3;
        row[start..start + 3].iter().map(|&value| f32::from(value))
    };
    padded.clear();
    padded.extend(
        (1..=half)
            .rev()
            .flat_map(|offset| margin(-(offset as isize))),
    );
    padded.extend(row.iter().map(|&value| f32::from(value)));
    padded.extend((0..half).flat_map(|offset| margin((width + offset) as isize)));
    let pairs = |offset: usize| {
        let shifted = |by: usize| &padded[by * 3..by * 3 + row.len()];
        (shifted(half - offset), shifted(half + offset))
    };
    weigh(kernel, pairs, target, |sum| sum);
}

/// Vertical pass: each output row is a weighted sum of rows.
#[inline(always)]
fn blur_columns(rows: &[f32], stride: usize, kernel: &[f32], out: &mut [u8]) {
    let height = rows.len() / stride;
    let row = |position: isize| {
        let start = reflect(position, height) * stride;
        &rows[start..start + stride]
    };
    for (y, target) in (0..).zip(out.chunks_exact_mut(stride)) {
        let pairs = |offset: usize| (row(y - offset as isize), row(y + offset as isize));
        weigh(kernel, pairs, target, |sum| saturated(sum + 0.5));
    }
}

/// The weighted sums of values: the kernel's centre times those of `pairs(0)`, which are twice the same, and each further weight
/// times the sum of the values on both sides at its distance. `finish` makes the results.
///
/// A stretch of sums stays in registers until all weights are through.
#[inline(always)]
fn weigh<'a, T>(
    kernel: &[f32],
    pairs: impl Fn(usize) -> (&'a [f32], &'a [f32]),
    target: &mut [T],
    finish: impl Fn(f32) -> T,
) {
    let mut start = 0;
    let (stretches, rest) = target.as_chunks_mut::<STRETCH>();
    for stretch in stretches {
        let mut sums = [0.0; STRETCH];
        for (offset, &weight) in kernel.iter().enumerate() {
            let (before, after) = pairs(offset);
            let (before, after) = (&before[start..][..STRETCH], &after[start..][..STRETCH]);
            if offset == 0 {
                for (sum, value) in sums.iter_mut().zip(before) {
                    *sum = weight * value;
                }
            } else {
                for (sum, (before, after)) in sums.iter_mut().zip(before.iter().zip(after)) {
                    *sum += weight * (before + after);
                }
            }
        }
        for (value, sum) in stretch.iter_mut().zip(sums) {
            *value = finish(sum);
        }
        start += STRETCH;
    }
    for (at, value) in (start..).zip(rest) {
        let mut sum = kernel[0] * pairs(0).0[at];
        for (offset, &weight) in kernel.iter().enumerate().skip(1) {
            let (before, after) = pairs(offset);
            sum += weight * (before[at] + after[at]);
        }
        *value = finish(sum);
    }
}

/// One blur, drawn: the arguments of [`gaussian_blur`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blur {
    /// Side of the kernel in pixels, odd.
    pub kernel_size: usize,
    /// Standard deviation in pixels, positive.
    pub sigma: f64,
}

impl Blur {
    /// The weights that [`gaussian_blur`] uses along either axis: the centre's, then one half's, outwards. All of them sum
    /// to one when the half is counted twice; a single weight leaves the image as it is.
    pub fn half_kernel(&self) -> Vec<f32> {
        let mut kernel = Vec::new();
        fill_kernel(&mut kernel, self.kernel_size, self.sigma);
        kernel
    }
}

/// Blurs with a probability and a random sigma; torchvision's
/// `RandomApply([GaussianBlur(kernel_size, sigma)], p)`.
#[derive(Clone, Copy, Debug)]
pub struct GaussianBlur {
    /// Side of the kernel in pixels, odd.
    pub kernel_size: usize,
    /// Range of the standard deviation in pixels.
    pub sigma: [f64; 2],
    /// Probability, 0 to 1.
    pub probability: f64,
}

impl GaussianBlur {
    /// The blur, if there is to be one.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Option<Blur> {
        chance(rng, self.probability).then(|| Blur {
            kernel_size: self.kernel_size,
            sigma: uniform(rng, self.sigma[0], self.sigma[1]),
        })
    }
}
