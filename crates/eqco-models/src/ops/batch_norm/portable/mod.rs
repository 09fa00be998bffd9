//! Batch-normalisation kernels on `[rows, channels]` slices: two passes forward, two backward.

mod column_sums;
mod statistics;

use rayon::prelude::*;

use self::column_sums::column_sums;
use self::statistics::widen;
use crate::ops::lanes::{CHUNK, vectorized};

pub use self::statistics::{Affine, Statistics};

/// Where the output was positive.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// No ReLU.
    None,
    /// Recompute the output from the input.
    FromInput(&'a Affine),
    /// The stored output.
    FromOutput(&'a [f32]),
}

/// Gradients of weight and bias.
#[derive(Clone, Debug)]
pub struct ParameterSums {
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl ParameterSums {
    /// Writes or adds the gradient of the weight.
    pub fn weight_into(&self, target: &mut [f32], accumulate: bool) {
        write_sums(&self.weight, target, accumulate);
    }
    /// Writes or adds the gradient of the bias.
    pub fn bias_into(&self, target: &mut [f32], accumulate: bool) {
        write_sums(&self.bias, target, accumulate);
    }
}

fn write_sums(sums: &[f64], target: &mut [f32], accumulate: bool) {
    for (target, sum) in target.iter_mut().zip(sums) {
        *target = if accumulate {
            *target + *sum as f32
        } else {
            *sum as f32
        };
    }
}

/// Task length: about [`CHUNK`] elements, a whole number of wide rows.
pub(super) fn task_len(wide: usize) -> usize {
    CHUNK.div_ceil(wide) * wide
}

/// `y = relu?(affine(x) + residual)`.
pub fn normalize(affine: &Affine, x: &[f32], residual: Option<&[f32]>, relu: bool, y: &mut [f32]) {
    let task = task_len(affine.scale.len());
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    match residual {
        None => y
            .par_chunks_mut(task)
            .zip(x.par_chunks(task))
            .for_each(|(y, x)| {
                vectorized(
                    #[inline(always)]
                    || normalize_rows(affine, x, floor, y),
                );
            }),
        Some(residual) => {
            y.par_chunks_mut(task)
                .zip(x.par_chunks(task))
                .zip(residual.par_chunks(task))
                .for_each(|((y, x), r)| {
                    vectorized(
                        #[inline(always)]
                        || normalize_rows_with_residual(affine, x, r, floor, y),
                    );
                });
        }
    }
}

/// The larger of value and floor. Unlike `f32::max` it lets a NaN through, so that a diverged run shows.
#[inline(always)]
fn clip(value: f32, floor: f32) -> f32 {
    if value < floor { floor } else { value }
}

#[inline(always)]
fn normalize_rows(affine: &Affine, x: &[f32], floor: f32, y: &mut [f32]) {
    let wide = affine.scale.len();
    for (y, x) in y.chunks_mut(wide).zip(x.chunks(wide)) {
        for (((y, x), scale), shift) in y.iter_mut().zip(x).zip(&affine.scale).zip(&affine.shift) {
            *y = clip(x * scale + shift, floor);
        }
    }
}

#[inline(always)]
fn normalize_rows_with_residual(
    affine: &Affine,
    x: &[f32],
    residual: &[f32],
    floor: f32,
    y: &mut [f32],
) {
    let wide = affine.scale.len();
    for ((y, x), residual) in y
        .chunks_mut(wide)
        .zip(x.chunks(wide))
        .zip(residual.chunks(wide))
    {
        let n = y.len();
        let (x, residual) = (&x[..n], &residual[..n]);
        let (scale, shift) = (&affine.scale[..n], &affine.shift[..n]);
        for c in 0..n {
            y[c] = clip(x[c] * scale[c] + shift[c] + residual[c], floor);
        }
    }
}

/// Replaces `dy` by the gradient of the input, writes the masked `dy` to `masked` if wanted, and returns the gradients of
/// weight and bias.
///
/// With x̂ the normalised input and g the masked gradient over n rows:
/// dx = γ·inverse_deviation·(g − mean(g) − x̂·mean(g·x̂)).
pub fn backward(
    statistics: &Statistics,
    weight: &[f32],
    x: &[f32],
    mask: &Mask<'_>,
    dy: &mut [f32],
    masked: Option<&mut [f32]>,
) -> ParameterSums {
    let layer = Layer { statistics, weight };
    match *mask {
        Mask::None => layer.backward(
            [x, x],
            #[inline(always)]
            |_, _, _| true,
            dy,
            masked,
        ),
        Mask::FromInput(affine) => layer.backward(
            [x, x],
            #[inline(always)]
            |x, _, column| x * affine.scale[column] + affine.shift[column] > 0.0,
            dy,
            masked,
        ),
        Mask::FromOutput(y) => layer.backward(
            [x, y],
            #[inline(always)]
            |_, y, _| y > 0.0,
            dy,
            masked,
        ),
    }
}

#[derive(Clone, Copy)]
struct Layer<'a> {
    statistics: &'a Statistics,
    weight: &'a [f32],
}

impl Layer<'_> {
    /// `positive` tells from input, output and column of the wide row where the gradient passes.
    fn backward(
        self,
        [x, y]: [&[f32]; 2],
        positive: impl Fn(f32, f32, usize) -> bool + Sync,
        dy: &mut [f32],
        masked: Option<&mut [f32]>,
    ) -> ParameterSums {
        let channels = self.weight.len();
        let mean = widen(&self.statistics.mean);
        let (bias, products) = column_sums(
            [x, dy, y],
            channels,
            #[inline(always)]
            |[x, dy, y], column| {
                let gradient = if positive(x, y, column) { dy } else { 0.0 };
                [gradient, gradient * (x - mean[column])]
            },
        );
        let inverse = self.statistics.inverse_deviation.iter();
        let weight: Vec<f64> = products
            .iter()
            .zip(inverse)
            .map(|(p, i)| p * f64::from(*i))
            .collect();
        let sums = ParameterSums { weight, bias };
        InputGradient::new(self, &sums, x.len() / channels).apply(x, y, positive, dy, masked);
        sums
    }
}

/// dx = slope·g + factor·x + offset, per channel, repeated to the wide row.
struct InputGradient {
    slope: Vec<f32>,
    factor: Vec<f32>,
    offset: Vec<f32>,
}

impl InputGradient {
    fn new(layer: Layer<'_>, sums: &ParameterSums, rows: usize) -> Self {
        let rows = rows as f64;
        let (mut slope, mut factor, mut offset) = (Vec::new(), Vec::new(), Vec::new());
        for channel in 0..layer.weight.len() {
            let inverse = f64::from(layer.statistics.inverse_deviation[channel]);
            let a = f64::from(layer.weight[channel]) * inverse;
            let b = -a * inverse * sums.weight[channel] / rows;
            slope.push(a as f32);
            factor.push(b as f32);
            offset.push(
                (-a * sums.bias[channel] / rows - b * f64::from(layer.statistics.mean[channel]))
                    as f32,
            );
        }
        Self {
            slope: widen(&slope),
            factor: widen(&factor),
            offset: widen(&offset),
        }
    }

    fn apply(
        &self,
        x: &[f32],
        y: &[f32],
        positive: impl Fn(f32, f32, usize) -> bool + Sync,
        dy: &mut [f32],
        masked: Option<&mut [f32]>,
    ) {
        let task = task_len(self.slope.len());
        let tasks = dy
            .par_chunks_mut(task)
            .zip(x.par_chunks(task))
            .zip(y.par_chunks(task));
        match masked {
            None => tasks.for_each(|((dy, x), y)| {
                vectorized(
                    #[inline(always)]
                    || self.rows(x, y, &positive, dy),
                );
            }),
            Some(masked) => {
                tasks
                    .zip(masked.par_chunks_mut(task))
                    .for_each(|(((dy, x), y), masked)| {
                        vectorized(
                            #[inline(always)]
                            || self.rows_with_masked(x, y, &positive, dy, masked),
                        );
                    })
            }
        }
    }

    #[inline(always)]
    fn rows(
        &self,
        x: &[f32],
        y: &[f32],
        positive: &impl Fn(f32, f32, usize) -> bool,
        dy: &mut [f32],
    ) {
        let wide = self.slope.len();
        for ((dy, x), y) in dy.chunks_mut(wide).zip(x.chunks(wide)).zip(y.chunks(wide)) {
            let n = dy.len();
            let (x, y) = (&x[..n], &y[..n]);
            let (slope, factor, offset) = (&self.slope[..n], &self.factor[..n], &self.offset[..n]);
            for c in 0..n {
                let gradient = if positive(x[c], y[c], c) { dy[c] } else { 0.0 };
                dy[c] = slope[c] * gradient + factor[c] * x[c] + offset[c];
            }
        }
    }

    #[inline(always)]
    fn rows_with_masked(
        &self,
        x: &[f32],
        y: &[f32],
        positive: &impl Fn(f32, f32, usize) -> bool,
        dy: &mut [f32],
        masked: &mut [f32],
    ) {
        let wide = self.slope.len();
        for (((dy, x), y), masked) in dy
            .chunks_mut(wide)
            .zip(x.chunks(wide))
            .zip(y.chunks(wide))
            .zip(masked.chunks_mut(wide))
        {
            let n = dy.len();
            let (x, y, masked) = (&x[..n], &y[..n], &mut masked[..n]);
            let (slope, factor, offset) = (&self.slope[..n], &self.factor[..n], &self.offset[..n]);
            for c in 0..n {
                let gradient = if positive(x[c], y[c], c) { dy[c] } else { 0.0 };
                masked[c] = gradient;
                dy[c] = slope[c] * gradient + factor[c] * x[c] + offset[c];
            }
        }
    }
}
