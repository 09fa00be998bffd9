//! Weights and their gradients, between `[O,3,3,I]` and the 36 points of the transform.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::transforms::{IN, POINTS, both_ways, weight_gradient_line, weight_line};
use crate::ops::factor::{Factor, words};
use crate::ops::lanes::dispatch;
use crate::ops::scratch::with_scratch;

/// Taps of the kernel.
const TAPS: usize = 9;

/// Which convolution the weights are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From I input channels to O output channels.
    Forward,
    /// From O channels of the output's gradient to I channels of the input's, with the kernel turned by 180°.
    Transposed,
}

/// Weights `[O,3,3,I]`.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) values: &'a [f32],
    /// I.
    pub(super) inputs: usize,
    pub(super) direction: Direction,
}

impl Weights<'_> {
    fn outputs(&self) -> usize {
        self.values.len() / TAPS / self.inputs
    }

    /// G·w·Gᵀ as words `[36, from / depth, columns]`, where `columns` are some of the channels that the convolution leads to.
    pub(super) fn transform<F: Factor>(&self, columns: Range<usize>, transformed: &mut [f32]) {
        match self.direction {
            Direction::Forward => with_scratch(self.inputs * TAPS * columns.len(), |turned| {
                self.transpose(columns.clone(), turned);
                dispatch(Transform::<F> {
                    source: turned,
                    row: TAPS * columns.len(),
                    tap: columns.len(),
                    rows: self.inputs,
                    width: columns.len(),
                    is_reversed: false,
                    transformed,
                    factor: PhantomData,
                });
            }),
            Direction::Transposed => dispatch(Transform::<F> {
                source: &self.values[columns.start..],
                row: TAPS * self.inputs,
                tap: self.inputs,
                rows: self.outputs(),
                width: columns.len(),
                is_reversed: true,
                transformed,
                factor: PhantomData,
            }),
        }
    }

    /// `[O,9,I]` to `[I,9,columns]`, in squares that stay in the first-level cache.
    fn transpose(&self, columns: Range<usize>, turned: &mut [f32]) {
        let width = columns.len();
        for first in (0..self.inputs).step_by(16) {
            for tap in 0..TAPS {
                for (index, output) in columns.clone().enumerate() {
                    let source = &self.values[(output * TAPS + tap) * self.inputs + first..];
                    for (offset, value) in
                        source.iter().take(16.min(self.inputs - first)).enumerate()
                    {
                        turned[((first + offset) * TAPS + tap) * width + index] = *value;
                    }
                }
            }
        }
    }
}

struct Transform<'a, F> {
    source: &'a [f32],
    /// Distance of rows and of taps in the source.
    row: usize,
    tap: usize,
    rows: usize,
    width: usize,
    is_reversed: bool,
    /// Words `[36, rows / depth, width]`.
    transformed: &'a mut [f32],
    factor: PhantomData<F>,
}

impl<F: Factor> WithSimd for Transform<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let plane = words::<F>(self.rows) * self.width;
        for row in 0..self.rows {
            for column in (0..self.width).step_by(S::F32_LANES) {
                let mut square = [[simd.splat_f32s(0.0); 3]; 3];
                for (index, value) in square.as_flattened_mut().iter_mut().enumerate() {
                    let tap = if self.is_reversed {
                        TAPS - 1 - index
                    } else {
                        index
                    };
                    let source = &self.source[row * self.row + tap * self.tap + column..];
                    *value = S::as_simd_f32s(&source[..S::F32_LANES]).0[0];
                }
                let points = both_ways::<S, 3, IN>(
                    simd,
                    square,
                    #[inline(always)]
                    |line| weight_line(simd, line),
                );
                for (index, value) in points.as_flattened().iter().enumerate() {
                    let place = index * plane + row / F::DEPTH * self.width + column;
                    let target = &mut self.transformed[place..][..S::F32_LANES];
                    F::put(simd, *value, row % F::DEPTH, target);
                }
            }
        }
    }
}

/// dw (+)= GᵀuG from the sum of `partials`, each `[36, rows, width]`, into `gradient` `[rows, 9, width]`.
pub(super) struct GradientOfWeights<'a> {
    pub(super) partials: &'a [&'a [f32]],
    /// Elements from one point to the next.
    pub(super) plane: usize,
    pub(super) width: usize,
    pub(super) gradient: &'a mut [f32],
    pub(super) accumulate: bool,
}

impl GradientOfWeights<'_> {
    /// Computes it on the calling thread.
    pub(super) fn run(self) {
        dispatch(self);
    }
}

impl WithSimd for GradientOfWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (row, gradient) in self
            .gradient
            .chunks_exact_mut(TAPS * self.width)
            .enumerate()
        {
            for column in (0..self.width).step_by(S::F32_LANES) {
                let mut points = [[simd.splat_f32s(0.0); IN]; IN];
                for (index, sum) in points.as_flattened_mut().iter_mut().enumerate() {
                    let place = index * self.plane + row * self.width + column;
                    for partial in self.partials {
                        let value = S::as_simd_f32s(&partial[place..][..S::F32_LANES]).0[0];
                        *sum = simd.add_f32s(*sum, value);
                    }
                }
                let taps = both_ways::<S, IN, 3>(
                    simd,
                    points,
                    #[inline(always)]
                    |line| weight_gradient_line(simd, line),
                );
                for (tap, value) in taps.as_flattened().iter().enumerate() {
                    let place = tap * self.width + column;
                    let target = &mut gradient[place..][..S::F32_LANES];
                    let target = &mut S::as_mut_simd_f32s(target).0[0];
                    *target = if self.accumulate {
                        simd.add_f32s(*target, *value)
                    } else {
                        *value
                    };
                }
            }
        }
    }
}

/// Words of the points of `rows` x `width` weights.
pub(super) fn transformed_len<F: Factor>(rows: usize, width: usize) -> usize {
    POINTS * words::<F>(rows) * width
}
