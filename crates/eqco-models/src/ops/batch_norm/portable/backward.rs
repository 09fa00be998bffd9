//! The backward passes: sums for the gradients of weight and bias, then the gradient of the input.

use pulp::Simd;
use rayon::prelude::*;

use super::column_sums::{Terms, column_sums};
use super::mask::{Open, OutputMask, Recomputed, Stored};
use super::sweep::{Pass, load, store, sweep, task_len, wide_row, widen};
use super::{Mask, Statistics};
use crate::ops::element::Element;

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

/// Replaces `dy` by the gradient of the input, writes the masked `dy` to `masked` if wanted, and returns the gradients of
/// weight and bias.
///
/// With x̂ the normalised input and g the masked gradient over n rows:
/// dx = γ·inverse_deviation·(g − mean(g) − x̂·mean(g·x̂)).
///
/// # Panics
/// When the slices differ in length.
pub fn backward<T: Element>(
    statistics: &Statistics,
    weight: &[f32],
    x: &[T],
    mask: &Mask<'_, T>,
    dy: &mut [T],
    masked: Option<&mut [T]>,
) -> ParameterSums {
    // What the unchecked loads below rely on.
    assert!(x.len() == dy.len() && masked.as_ref().is_none_or(|masked| masked.len() == x.len()));
    assert_eq!(statistics.mean.len(), weight.len());
    match *mask {
        Mask::None => {}
        Mask::FromInput(affine) => assert_eq!(affine.row().wide(), wide_row(weight.len())),
        Mask::FromOutput(y) => assert_eq!(y.len(), x.len()),
    }
    let layer = Layer { statistics, weight };
    match *mask {
        Mask::None => layer.backward(x, Open, dy, masked),
        Mask::FromInput(affine) => layer.backward(x, Recomputed(affine.row()), dy, masked),
        Mask::FromOutput(y) => layer.backward(x, Stored(y), dy, masked),
    }
}

#[derive(Clone, Copy)]
struct Layer<'a> {
    statistics: &'a Statistics,
    weight: &'a [f32],
}

impl Layer<'_> {
    fn backward<T: Element>(
        self,
        x: &[T],
        mask: impl OutputMask,
        dy: &mut [T],
        masked: Option<&mut [T]>,
    ) -> ParameterSums {
        let sums = self.parameter_sums(x, mask, dy);
        let coefficients = Coefficients::new(self, &sums, x.len() / self.weight.len());
        let task = task_len(coefficients.slope.len());
        let run = |index: usize, dy: &mut [T], masked: Option<&mut [T]>| {
            sweep(InputGradient {
                slope: &coefficients.slope,
                factor: &coefficients.factor,
                offset: &coefficients.offset,
                x,
                mask,
                start: index * task,
                dy,
                masked,
            });
        };
        match masked {
            None => dy
                .par_chunks_mut(task)
                .enumerate()
                .for_each(|(index, dy)| run(index, dy, None)),
            Some(masked) => dy
                .par_chunks_mut(task)
                .zip(masked.par_chunks_mut(task))
                .enumerate()
                .for_each(|(index, (dy, masked))| run(index, dy, Some(masked))),
        }
        sums
    }

    fn parameter_sums<T: Element>(self, x: &[T], mask: impl OutputMask, dy: &[T]) -> ParameterSums {
        let mean = widen(&self.statistics.mean);
        let terms = GradientTerms {
            x,
            dy,
            mask,
            mean: &mean,
        };
        let [bias, products] = column_sums(terms, self.weight.len());
        let weight = products
            .iter()
            .zip(&self.statistics.inverse_deviation)
            .map(|(product, inverse)| product * f64::from(*inverse))
            .collect();
        ParameterSums { weight, bias }
    }
}

/// The masked gradient g, and g·(x − mean).
#[derive(Clone, Copy)]
struct GradientTerms<'a, T, M> {
    x: &'a [T],
    dy: &'a [T],
    mask: M,
    mean: &'a [f32],
}

impl<T: Element, M: OutputMask> Terms for GradientTerms<'_, T, M> {
    fn len(&self) -> usize {
        self.x.len()
    }

    #[inline(always)]
    unsafe fn terms<S: Simd>(&self, simd: S, place: usize, column: usize) -> [S::f32s; 2] {
        // SAFETY: as the caller promises; all slices have the length of `x`.
        unsafe {
            let x = load(simd, self.x, place);
            let gradient = load(simd, self.dy, place);
            let gradient = self.mask.mask(simd, gradient, x, place, column);
            let difference = simd.sub_f32s(x, load(simd, self.mean, column));
            [gradient, simd.mul_f32s(gradient, difference)]
        }
    }
}

/// dx = slope·g + factor·x + offset, per channel, repeated to the wide row.
struct Coefficients {
    slope: Vec<f32>,
    factor: Vec<f32>,
    offset: Vec<f32>,
}

impl Coefficients {
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
}

struct InputGradient<'a, T, M> {
    slope: &'a [f32],
    factor: &'a [f32],
    offset: &'a [f32],
    x: &'a [T],
    mask: M,
    /// The place of the first element of `dy` in `x`.
    start: usize,
    dy: &'a mut [T],
    masked: Option<&'a mut [T]>,
}

impl<T: Element, M: OutputMask> Pass for InputGradient<'_, T, M> {
    fn len(&self) -> usize {
        self.dy.len()
    }

    fn wide(&self) -> usize {
        self.slope.len()
    }

    #[inline(always)]
    unsafe fn vector<S: Simd>(&mut self, simd: S, place: usize, column: usize) {
        // SAFETY: as the caller promises; `masked` has the length of `dy`, and `x` goes on from `start` as long.
        unsafe {
            let x = load(simd, self.x, self.start + place);
            let gradient = load(simd, self.dy, place);
            let gradient = self
                .mask
                .mask(simd, gradient, x, self.start + place, column);
            if let Some(masked) = &mut self.masked {
                store(simd, gradient, masked, place);
            }
            let [slope, factor, offset] =
                [self.slope, self.factor, self.offset].map(|c| load(simd, c, column));
            let line = simd.mul_add_e_f32s(factor, x, offset);
            let input = simd.mul_add_e_f32s(slope, gradient, line);
            store(simd, input, self.dy, place);
        }
    }
}
