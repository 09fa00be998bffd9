//! Batch-normalisation kernels on `[rows, channels]` slices: two passes forward, two backward. Arithmetic is f32 for any
//! [`Element`], sums are f64 across tasks.

mod column_sums;
mod statistics;

use rayon::prelude::*;

use self::column_sums::column_sums;
use self::statistics::widen;
use crate::ops::element::Element;
use crate::ops::lanes::{CHUNK, vectorized};

pub use self::statistics::{Affine, Statistics};

/// Where the output was positive.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a, T> {
    /// No ReLU.
    None,
    /// Recompute the output from the input.
    FromInput(&'a Affine),
    /// The stored output.
    FromOutput(&'a [T]),
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
pub fn normalize<T: Element>(
    affine: &Affine,
    x: &[T],
    residual: Option<&[T]>,
    relu: bool,
    y: &mut [T],
) {
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
fn normalize_rows<T: Element>(affine: &Affine, x: &[T], floor: f32, y: &mut [T]) {
    let wide = affine.scale.len();
    for (y, x) in y.chunks_mut(wide).zip(x.chunks(wide)) {
        for (((y, x), scale), shift) in y.iter_mut().zip(x).zip(&affine.scale).zip(&affine.shift) {
            *y = T::store(clip(x.load() * scale + shift, floor));
        }
    }
}

#[inline(always)]
fn normalize_rows_with_residual<T: Element>(
    affine: &Affine,
    x: &[T],
    residual: &[T],
    floor: f32,
    y: &mut [T],
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
            let sum = x[c].load() * scale[c] + shift[c] + residual[c].load();
            y[c] = T::store(clip(sum, floor));
        }
    }
}

/// Replaces `dy` by the gradient of the input, writes the masked `dy` to `masked` if wanted, and returns the gradients of
/// weight and bias.
///
/// With x̂ the normalised input and g the masked gradient over n rows:
/// dx = γ·inverse_deviation·(g − mean(g) − x̂·mean(g·x̂)).
pub fn backward<T: Element>(
    statistics: &Statistics,
    weight: &[f32],
    x: &[T],
    mask: &Mask<'_, T>,
    dy: &mut [T],
    masked: Option<&mut [T]>,
) -> ParameterSums {
    let layer = Layer { statistics, weight };
    let unused = widen(&statistics.mean);
    match *mask {
        Mask::None => layer.backward(
            [x, x],
            [&unused, &unused],
            #[inline(always)]
            |_, _, _| true,
            dy,
            masked,
        ),
        Mask::FromInput(affine) => layer.backward(
            [x, x],
            [&affine.scale, &affine.shift],
            #[inline(always)]
            |x, _, [scale, shift]| x * scale + shift > 0.0,
            dy,
            masked,
        ),
        Mask::FromOutput(y) => layer.backward(
            [x, y],
            [&unused, &unused],
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
    /// `positive` tells from input, output and the column's values of `affine` where the gradient passes.
    fn backward<T: Element>(
        self,
        [x, y]: [&[T]; 2],
        affine: [&[f32]; 2],
        positive: impl Fn(f32, f32, [f32; 2]) -> bool + Sync,
        dy: &mut [T],
        masked: Option<&mut [T]>,
    ) -> ParameterSums {
        let channels = self.weight.len();
        let mean = widen(&self.statistics.mean);
        let (bias, products) = column_sums(
            [x, dy, y],
            [&mean, affine[0], affine[1]],
            channels,
            #[inline(always)]
            |[x, dy, y], [mean, scale, shift]| {
                let gradient = if positive(x, y, [scale, shift]) {
                    dy
                } else {
                    0.0
                };
                [gradient, gradient * (x - mean)]
            },
        );
        let inverse = self.statistics.inverse_deviation.iter();
        let weight: Vec<f64> = products
            .iter()
            .zip(inverse)
            .map(|(p, i)| p * f64::from(*i))
            .collect();
        let sums = ParameterSums { weight, bias };
        InputGradient::new(self, affine, &sums, x.len() / channels).apply(
            [x, y],
            positive,
            dy,
            masked,
        );
        sums
    }
}

/// dx = slope·g + factor·x + offset, per channel, repeated to the wide row.
struct InputGradient<'a> {
    /// What the mask is computed from.
    affine: [&'a [f32]; 2],
    slope: Vec<f32>,
    factor: Vec<f32>,
    offset: Vec<f32>,
}

impl<'a> InputGradient<'a> {
    fn new(layer: Layer<'_>, affine: [&'a [f32]; 2], sums: &ParameterSums, rows: usize) -> Self {
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
            affine,
            slope: widen(&slope),
            factor: widen(&factor),
            offset: widen(&offset),
        }
    }

    fn apply<T: Element>(
        &self,
        [x, y]: [&[T]; 2],
        positive: impl Fn(f32, f32, [f32; 2]) -> bool + Sync,
        dy: &mut [T],
        masked: Option<&mut [T]>,
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
    fn rows<T: Element>(
        &self,
        x: &[T],
        y: &[T],
        positive: &impl Fn(f32, f32, [f32; 2]) -> bool,
        dy: &mut [T],
    ) {
        let wide = self.slope.len();
        for ((dy, x), y) in dy.chunks_mut(wide).zip(x.chunks(wide)).zip(y.chunks(wide)) {
            let n = dy.len();
            let (x, y) = (&x[..n], &y[..n]);
            let (slope, factor, offset) = (&self.slope[..n], &self.factor[..n], &self.offset[..n]);
            let (scale, shift) = (&self.affine[0][..n], &self.affine[1][..n]);
            for c in 0..n {
                let x = x[c].load();
                let open = positive(x, y[c].load(), [scale[c], shift[c]]);
                let gradient = if open { dy[c] } else { T::ZERO };
                let input = slope[c] * gradient.load() + factor[c] * x + offset[c];
                dy[c] = T::store(input);
            }
        }
    }

    #[inline(always)]
    fn rows_with_masked<T: Element>(
        &self,
        x: &[T],
        y: &[T],
        positive: &impl Fn(f32, f32, [f32; 2]) -> bool,
        dy: &mut [T],
        masked: &mut [T],
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
            let (scale, shift) = (&self.affine[0][..n], &self.affine[1][..n]);
            for c in 0..n {
                let x = x[c].load();
                let open = positive(x, y[c].load(), [scale[c], shift[c]]);
                let gradient = if open { dy[c] } else { T::ZERO };
                masked[c] = gradient;
                let input = slope[c] * gradient.load() + factor[c] * x + offset[c];
                dy[c] = T::store(input);
            }
        }
    }
}
