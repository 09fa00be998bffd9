//! The backward passes: sums for the gradients of weight and bias, then the gradient of the input.

use pulp::Simd;
use rayon::prelude::*;

use super::column_sums::{Terms, column_sums};
use super::mask::{Open, OutputMask, Recomputed, Stored, where_positive};
use super::sweep::{Pass, load, load_next, store, sweep, task_len, wide_row, widen};
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

/// Replaces `dy` by the gradient of the input, a stored output by the masked `dy`, and returns the gradients of weight and
/// bias.
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
    mask: Mask<'_, T>,
    dy: &mut [T],
) -> ParameterSums {
    // What the unchecked loads below rely on.
    assert_eq!(x.len(), dy.len());
    assert_eq!(statistics.mean.len(), weight.len());
    let layer = Layer { statistics, weight };
    match mask {
        Mask::None => layer.backward(x, Open, dy),
        Mask::FromInput(affine) => {
            assert_eq!(affine.row().wide(), wide_row(weight.len()));
            layer.backward(x, Recomputed(affine.row()), dy)
        }
        Mask::FromOutput(y) => {
            assert_eq!(x.len(), y.len());
            layer.backward_with_residual(x, y, dy)
        }
    }
}

#[derive(Clone, Copy)]
struct Layer<'a> {
    statistics: &'a Statistics,
    weight: &'a [f32],
}

impl Layer<'_> {
    fn backward<T: Element>(self, x: &[T], mask: impl OutputMask, dy: &mut [T]) -> ParameterSums {
        let sums = self.parameter_sums(x, mask, dy);
        let coefficients = Coefficients::new(self, &sums, x.len() / self.weight.len());
        let task = task_len(coefficients.slope.len());
        dy.par_chunks_mut(task)
            .zip(x.par_chunks(task))
            .for_each(|(dy, x)| {
                sweep(InputGradient {
                    coefficients: coefficients.view(),
                    x,
                    mask,
                    dy,
                });
            });
        sums
    }

    fn backward_with_residual<T: Element>(
        self,
        x: &[T],
        y: &mut [T],
        dy: &mut [T],
    ) -> ParameterSums {
        let sums = self.parameter_sums(x, Stored(&*y), dy);
        let coefficients = Coefficients::new(self, &sums, x.len() / self.weight.len());
        let task = task_len(coefficients.slope.len());
        dy.par_chunks_mut(task)
            .zip(y.par_chunks_mut(task))
            .zip(x.par_chunks(task))
            .for_each(|((dy, y), x)| {
                sweep(BothGradients {
                    coefficients: coefficients.view(),
                    x,
                    y,
                    dy,
                });
            });
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
    type Element = T;

    fn len(&self) -> usize {
        self.x.len()
    }

    #[inline(always)]
    unsafe fn terms<S: Simd>(&self, simd: S, place: usize, column: usize) -> [S::f32s; 2] {
        // SAFETY: as the caller promises; all slices have the length of `x`.
        unsafe {
            let x = load_next(simd, self.x, place);
            let gradient = load_next(simd, self.dy, place);
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

impl Coefficients {
    fn view(&self) -> CoefficientsView<'_> {
        CoefficientsView {
            slope: &self.slope,
            factor: &self.factor,
            offset: &self.offset,
        }
    }
}

/// Slices by value, for addresses that stay in registers.
#[derive(Clone, Copy)]
struct CoefficientsView<'a> {
    slope: &'a [f32],
    factor: &'a [f32],
    offset: &'a [f32],
}

impl CoefficientsView<'_> {
    /// The gradient of inputs whose constants lie in the wide row from `column` on.
    ///
    /// # Safety
    /// The vector must end within the wide row.
    #[inline(always)]
    unsafe fn input_gradient<S: Simd>(
        self,
        simd: S,
        x: S::f32s,
        masked: S::f32s,
        column: usize,
    ) -> S::f32s {
        // SAFETY: as the caller promises; the three have one length.
        let [slope, factor, offset] =
            unsafe { [self.slope, self.factor, self.offset].map(|c| load(simd, c, column)) };
        let line = simd.mul_add_e_f32s(factor, x, offset);
        simd.mul_add_e_f32s(slope, masked, line)
    }
}

struct InputGradient<'a, T, M> {
    coefficients: CoefficientsView<'a>,
    x: &'a [T],
    /// Needs no place: stored outputs are those of [`BothGradients`].
    mask: M,
    dy: &'a mut [T],
}

impl<T: Element, M: OutputMask> Pass for InputGradient<'_, T, M> {
    type Element = T;

    fn len(&self) -> usize {
        self.dy.len()
    }

    fn wide(&self) -> usize {
        self.coefficients.slope.len()
    }

    #[inline(always)]
    unsafe fn vector<S: Simd>(&mut self, simd: S, place: usize, column: usize) {
        // SAFETY: as the caller promises; `x` has the length of `dy`.
        unsafe {
            let x = load_next(simd, self.x, place);
            let gradient = load_next(simd, self.dy, place);
            let masked = self.mask.mask(simd, gradient, x, place, column);
            let input = self.coefficients.input_gradient(simd, x, masked, column);
            store(simd, input, self.dy, place);
        }
    }
}

/// Leaves the input's gradient in place of the output's, and the residual's in place of the output.
struct BothGradients<'a, T> {
    coefficients: CoefficientsView<'a>,
    x: &'a [T],
    y: &'a mut [T],
    dy: &'a mut [T],
}

impl<T: Element> Pass for BothGradients<'_, T> {
    type Element = T;

    fn len(&self) -> usize {
        self.dy.len()
    }

    fn wide(&self) -> usize {
        self.coefficients.slope.len()
    }

    #[inline(always)]
    unsafe fn vector<S: Simd>(&mut self, simd: S, place: usize, column: usize) {
        // SAFETY: as the caller promises; all slices have the length of `dy`.
        unsafe {
            let x = load_next(simd, self.x, place);
            let masked = where_positive(
                simd,
                load_next(simd, self.y, place),
                load_next(simd, self.dy, place),
            );
            let input = self.coefficients.input_gradient(simd, x, masked, column);
            store(simd, masked, self.y, place);
            store(simd, input, self.dy, place);
        }
    }
}
