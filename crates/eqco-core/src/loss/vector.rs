//! The inner loops over `f32` rows, written so that the compiler turns them into vector code.
//!
//! Each loop is a [`WithSimd`] operation, which `pulp` compiles for AVX-512, AVX2 and the baseline and
//! picks from at run time. (A closure would not do: it is not inlined into the code with the wider
//! instructions, and stays at the baseline.) Sums run over [`LANES`] independent partial sums:
//! floating-point addition must not be reordered behind our back, so one running sum would stay
//! scalar.

use pulp::{Arch, Simd, WithSimd};

/// Independent partial sums: one AVX-512 register, two of AVX2, four of NEON.
const LANES: usize = 16;

/// Below this, `exp` is under the smallest normal number and counts as 0.
const SMALLEST_EXPONENT: f32 = -87.0;

/// Dot product of two rows of the same length.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    Arch::new().dispatch(Dot { a, b })
}

/// `target += factor * row`.
pub(super) fn add_scaled(target: &mut [f32], factor: f32, row: &[f32]) {
    Arch::new().dispatch(AddScaled {
        target,
        factor,
        row,
    });
}

/// `target *= factor`.
pub(super) fn scale(target: &mut [f32], factor: f32) {
    for value in target {
        *value *= factor;
    }
}

/// Largest value and sum of a row of logits. Entries of minus infinity are excluded negatives and
/// stay out of the sum; NaN stays out of the maximum but not of the sum.
pub(super) fn largest_and_sum(logits: &[f32]) -> (f32, f32) {
    Arch::new().dispatch(LargestAndSum { logits })
}

/// Replaces every logit `s` by `factor * exp(s - shift)` and returns the sum of the new values.
/// NaN goes through, so that a bad input shows in the loss.
pub(super) fn exponentiate(logits: &mut [f32], shift: f32, factor: f32) -> f32 {
    Arch::new().dispatch(Exponentiate {
        logits,
        shift,
        factor,
    })
}

struct Dot<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl WithSimd for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        let mut sums = [0.0f32; LANES];
        let (a_blocks, a_rest) = self.a.as_chunks::<LANES>();
        let (b_blocks, b_rest) = self.b.as_chunks::<LANES>();
        for (x, y) in a_blocks.iter().zip(b_blocks) {
            for lane in 0..LANES {
                sums[lane] += x[lane] * y[lane];
            }
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
        sum_lanes(sums) + rest
    }
}

struct AddScaled<'a> {
    target: &'a mut [f32],
    factor: f32,
    row: &'a [f32],
}

impl WithSimd for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (sum, value) in self.target.iter_mut().zip(self.row) {
            *sum += self.factor * value;
        }
    }
}

struct LargestAndSum<'a> {
    logits: &'a [f32],
}

impl WithSimd for LargestAndSum<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f32, f32) {
        let mut largest = [f32::NEG_INFINITY; LANES];
        let mut sums = [0.0f32; LANES];
        let (blocks, rest) = self.logits.as_chunks::<LANES>();
        for block in blocks {
            for lane in 0..LANES {
                largest[lane] = larger(largest[lane], block[lane]);
                sums[lane] += zero_if_excluded(block[lane]);
            }
        }
        let mut result = (join_lanes(largest, larger), sum_lanes(sums));
        for &logit in rest {
            result = (larger(result.0, logit), result.1 + zero_if_excluded(logit));
        }
        result
    }
}

struct Exponentiate<'a> {
    logits: &'a mut [f32],
    shift: f32,
    factor: f32,
}

impl WithSimd for Exponentiate<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        let mut sums = [0.0f32; LANES];
        let (blocks, rest) = self.logits.as_chunks_mut::<LANES>();
        for block in blocks {
            for lane in 0..LANES {
                let weight = self.factor * exp(block[lane] - self.shift);
                block[lane] = weight;
                sums[lane] += weight;
            }
        }
        let mut sum = sum_lanes(sums);
        for logit in rest {
            *logit = self.factor * exp(*logit - self.shift);
            sum += *logit;
        }
        sum
    }
}

/// `exp(x)` for `x` up to 88 to about 2 units in the last place, without a branch: `x` is split into
/// `k ln 2 + r` with `|r| <= ln(2) / 2`, and `exp(r)` is Cephes' polynomial.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    const EXPONENT_BIAS: u32 = 127;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let k = rounded - ROUNDER;
    let r = x - k * LN_2_HIGH - k * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    let power_of_two = rounded
        .to_bits()
        .wrapping_sub(ROUNDER.to_bits() - EXPONENT_BIAS)
        << 23;
    if x < SMALLEST_EXPONENT {
        0.0
    } else {
        p * f32::from_bits(power_of_two)
    }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

#[inline(always)]
fn zero_if_excluded(logit: f32) -> f32 {
    if logit == f32::NEG_INFINITY {
        0.0
    } else {
        logit
    }
}

/// Joins the lanes in pairs, which keeps them in registers; a chain would take them apart.
#[inline(always)]
fn join_lanes(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn sum_lanes(sums: [f32; LANES]) -> f32 {
    join_lanes(sums, |a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_float64_within_three_units_in_the_last_place() {
        for step in 0..=95_000 {
            let x = -87.0 + step as f32 * 1e-3;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(
                error < 3.0 * f64::from(f32::EPSILON),
                "exp({x}): relative error {error}"
            );
        }
    }

    #[test]
    fn exp_of_excluded_is_zero_and_of_nan_is_nan() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn rows_of_any_length_are_summed_whole() {
        for length in [1, 15, 16, 17, 50] {
            let row: Vec<f32> = (1..=length).map(|i| i as f32).collect();
            let squares: f32 = row.iter().map(|x| x * x).sum();
            assert_eq!(dot(&row, &row), squares);
            let sum = (length * (length + 1) / 2) as f32;
            assert_eq!(largest_and_sum(&row), (length as f32, sum));
            let mut zeros = vec![3.0; length];
            assert_eq!(exponentiate(&mut zeros, 3.0, 2.0), 2.0 * length as f32);
            assert_eq!(zeros, vec![2.0; length]);
        }
    }

    #[test]
    fn excluded_entries_stay_out_of_maximum_and_sum() {
        let row = [f32::NEG_INFINITY, -2.0, -3.0];
        assert_eq!(largest_and_sum(&row), (-2.0, -5.0));
    }
}
