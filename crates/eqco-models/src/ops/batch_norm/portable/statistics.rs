//! Statistics of a batch and the affine map that they make of a normalisation.

use pulp::Simd;

use super::column_sums::{Terms, column_sums};
use super::sweep::{load, load_next, widen};
use crate::ops::element::Element;

/// Mean and inverse deviation of every channel.
#[derive(Clone, Debug)]
pub struct Statistics {
    pub(super) mean: Vec<f32>,
    pub(super) inverse_deviation: Vec<f32>,
    /// Biased variance.
    variance: Vec<f64>,
    count: usize,
}

/// y = scale·x + shift, per channel, repeated to the wide row.
#[derive(Clone, Debug)]
pub struct Affine {
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

impl Statistics {
    /// Statistics of `x` `[rows, channels]`, summed over differences to the first row: nothing cancels when the mean is
    /// large against the deviation.
    pub fn of<T: Element>(x: &[T], channels: usize, epsilon: f64) -> Self {
        let first_row: Vec<f32> = x[..channels].iter().map(|x| x.load()).collect();
        let terms = Differences {
            x,
            origin: &widen(&first_row),
        };
        let [sum, squares] = column_sums(terms, channels);
        let count = x.len() / channels;
        let rows = count as f64;
        let mean = (0..channels)
            .map(|c| (f64::from(first_row[c]) + sum[c] / rows) as f32)
            .collect();
        let variance: Vec<f64> = sum
            .iter()
            .zip(&squares)
            .map(|(s, q)| (q / rows - (s / rows).powi(2)).max(0.0))
            .collect();
        let inverse_deviation = variance
            .iter()
            .map(|v| (1.0 / (v + epsilon).sqrt()) as f32)
            .collect();
        Self {
            mean,
            inverse_deviation,
            variance,
            count,
        }
    }

    /// Statistics from running estimates.
    pub fn from_running(mean: &[f32], variance: &[f32], epsilon: f64) -> Self {
        let variance: Vec<f64> = variance.iter().map(|v| f64::from(*v)).collect();
        let inverse_deviation = variance
            .iter()
            .map(|v| (1.0 / (v + epsilon).sqrt()) as f32)
            .collect();
        Self {
            mean: mean.to_vec(),
            inverse_deviation,
            variance,
            count: 0,
        }
    }

    /// Moves the running mean by the share `momentum`.
    pub fn update_running_mean(&self, running: &mut [f32], momentum: f64) {
        for (running, mean) in running.iter_mut().zip(&self.mean) {
            *running =
                ((1.0 - momentum) * f64::from(*running) + momentum * f64::from(*mean)) as f32;
        }
    }

    /// Moves the running variance by the share `momentum` of the unbiased variance, as PyTorch does.
    pub fn update_running_var(&self, running: &mut [f32], momentum: f64) {
        let unbiased = self.count as f64 / (self.count - 1) as f64;
        for (running, variance) in running.iter_mut().zip(&self.variance) {
            *running =
                ((1.0 - momentum) * f64::from(*running) + momentum * variance * unbiased) as f32;
        }
    }
}

impl Affine {
    /// scale = γ/√(var+ε), shift = β − mean·scale.
    pub fn new(statistics: &Statistics, weight: &[f32], bias: &[f32]) -> Self {
        let scale: Vec<f32> = statistics
            .inverse_deviation
            .iter()
            .zip(weight)
            .map(|(i, w)| i * w)
            .collect();
        let shift: Vec<f32> = scale
            .iter()
            .zip(&statistics.mean)
            .zip(bias)
            .map(|((scale, mean), bias)| bias - mean * scale)
            .collect();
        Self {
            scale: widen(&scale),
            shift: widen(&shift),
        }
    }

    /// Its constants, for passes.
    pub(super) fn row(&self) -> AffineRow<'_> {
        AffineRow {
            scale: &self.scale,
            shift: &self.shift,
        }
    }
}

/// The constants of an [`Affine`].
#[derive(Clone, Copy)]
pub(super) struct AffineRow<'a> {
    scale: &'a [f32],
    shift: &'a [f32],
}

impl AffineRow<'_> {
    pub(super) fn wide(self) -> usize {
        self.scale.len().min(self.shift.len())
    }

    /// The map of a vector whose constants lie in the wide row from `column` on.
    ///
    /// # Safety
    /// The constants must end within the wide row.
    #[inline(always)]
    pub(super) unsafe fn of<S: Simd>(self, simd: S, x: S::f32s, column: usize) -> S::f32s {
        // SAFETY: as the caller promises.
        let [scale, shift] = unsafe {
            [
                load(simd, self.scale, column),
                load(simd, self.shift, column),
            ]
        };
        simd.mul_add_e_f32s(x, scale, shift)
    }
}

/// x − origin, and its square.
#[derive(Clone, Copy)]
struct Differences<'a, T> {
    x: &'a [T],
    origin: &'a [f32],
}

impl<T: Element> Terms for Differences<'_, T> {
    type Element = T;

    fn len(&self) -> usize {
        self.x.len()
    }

    #[inline(always)]
    unsafe fn terms<S: Simd>(&self, simd: S, place: usize, column: usize) -> [S::f32s; 2] {
        // SAFETY: as the caller promises.
        let [x, origin] = unsafe {
            [
                load_next(simd, self.x, place),
                load(simd, self.origin, column),
            ]
        };
        let difference = simd.sub_f32s(x, origin);
        [difference, simd.mul_f32s(difference, difference)]
    }
}
