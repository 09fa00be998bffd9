//! Weights and their gradients, between `[O,3,3,I]` and the 36 points of the transform.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::layout::BLOCK;
use super::transforms::{IN, POINTS, both_ways, weight_gradient_line, weight_line};
use crate::ops::factor::Factor;
use crate::ops::lanes::dispatch;
use crate::ops::scratch::with_scratch;
use crate::ops::square::transposed;

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

    /// Channels that the convolution starts from.
    fn from(&self) -> usize {
        match self.direction {
            Direction::Forward => self.inputs,
            Direction::Transposed => self.outputs(),
        }
    }

    /// G·w·Gᵀ in a [`WeightLayout`], where `columns` are some of the channels that the convolution leads to.
    pub(super) fn transform<F: Factor>(&self, columns: Range<usize>, transformed: &mut [f32]) {
        let layout = WeightLayout::new::<F>(columns.len());
        assert_eq!(transformed.len(), layout.len(self.from()));
        with_scratch(BLOCK * TAPS * columns.len(), |turned| {
            let blocks = transformed.chunks_exact_mut(POINTS * layout.stride());
            for (block, transformed) in blocks.enumerate() {
                let rows = block * BLOCK..(block + 1) * BLOCK;
                let (source, row, tap) = match self.direction {
                    Direction::Forward => {
                        self.turn(rows, columns.clone(), turned);
                        (&*turned, TAPS * columns.len(), columns.len())
                    }
                    Direction::Transposed => {
                        let start = rows.start * TAPS * self.inputs + columns.start;
                        (&self.values[start..], TAPS * self.inputs, self.inputs)
                    }
                };
                F::dispatch(Transform::<F> {
                    source,
                    row,
                    tap,
                    is_reversed: self.direction == Direction::Transposed,
                    layout,
                    transformed,
                    factor: PhantomData,
                });
            }
        });
    }

    /// `[O,9,I]` to `[16,9,columns]` for sixteen input channels.
    fn turn(&self, inputs: Range<usize>, columns: Range<usize>, turned: &mut [f32]) {
        let width = columns.len();
        for tap in 0..TAPS {
            for first in (0..width).step_by(BLOCK) {
                let mut square = [[0.0; BLOCK]; BLOCK];
                for (output, line) in square.iter_mut().enumerate() {
                    let output = columns.start + first + output;
                    let source = (output * TAPS + tap) * self.inputs + inputs.start;
                    line.copy_from_slice(&self.values[source..][..BLOCK]);
                }
                for (input, line) in transposed(&square).iter().enumerate() {
                    turned[(input * TAPS + tap) * width + first..][..BLOCK].copy_from_slice(line);
                }
            }
        }
    }
}

/// How transformed weights lie in memory: words `[from / 16, 36, 16 / depth, width]`, so that a product reads one piece for
/// every block of channels, and the 36 points of a weight lie near each other.
#[derive(Clone, Copy)]
pub(super) struct WeightLayout {
    width: usize,
    /// Rows of words of a block at one point.
    rows: usize,
}

impl WeightLayout {
    pub(super) fn new<F: Factor>(width: usize) -> Self {
        Self {
            width,
            rows: BLOCK / F::DEPTH,
        }
    }

    /// Words from one point of a block to the next: a gap keeps them from sharing few sets of the first-level cache.
    pub(super) fn stride(self) -> usize {
        self.rows * self.width + BLOCK
    }

    /// Words of the weights from so many channels.
    pub(super) fn len(self, from: usize) -> usize {
        from / BLOCK * POINTS * self.stride()
    }
}

/// The transform of one block of sixteen channels.
struct Transform<'a, F> {
    source: &'a [f32],
    /// Distance of rows and of taps in the source.
    row: usize,
    tap: usize,
    is_reversed: bool,
    layout: WeightLayout,
    transformed: &'a mut [f32],
    factor: PhantomData<F>,
}

impl<F: Factor> WithSimd for Transform<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.layout.width;
        for row in 0..BLOCK {
            for column in (0..width).step_by(S::F32_LANES) {
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
                    let place = index * self.layout.stride() + row / F::DEPTH * width + column;
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
