//! The transforms of F(4x4,3x3) with interpolation points 0, ±√½, ±√2 and ∞.
//!
//! Lavin and Gray (arXiv 1509.09308, section 4.3) take 0, ±1, ±2 and ∞: their fourth powers of 2 cost accuracy. Simulated on 272
//! channels, the largest error relative to the largest output is 1.2e-5 there and 2.5e-6 here, at the same number of
//! operations (0, ±5/8, ±3/2: 3.0e-6).
//!
//! Every function maps one line (of a tile's six rows or columns) in vectors of channels; a two-dimensional transform
//! applies it to columns and then to rows. Written out with shared terms: the matrices stand beside each function.

use pulp::Simd;

/// Side of an output tile.
pub(super) const OUT: usize = 4;
/// Side of an input tile: output side + kernel − 1.
pub(super) const IN: usize = 6;
/// Products a tile and pair of channels.
pub(super) const POINTS: usize = IN * IN;

/// √½, the first point.
const NEAR: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// √2, the second point: its product with the first is 1.
const FAR: f32 = std::f32::consts::SQRT_2;

/// Bᵀx, rows (1 0 −5/2 0 1 0), (0 ∓√2 −2 ±√½ 1 0), (0 ∓√½ −1/2 ±√2 1 0), (0 1 0 −5/2 0 1).
#[inline(always)]
pub(super) fn input_line<S: Simd>(simd: S, x: [S::f32s; IN]) -> [S::f32s; IN] {
    let [near, far] = [simd.splat_f32s(NEAR), simd.splat_f32s(FAR)];
    let [half, two, wide] = [
        simd.splat_f32s(-0.5),
        simd.splat_f32s(-2.0),
        simd.splat_f32s(-2.5),
    ];
    let near_even = simd.mul_add_e_f32s(two, x[2], x[4]);
    let near_odd = simd.sub_f32s(simd.mul_f32s(near, x[3]), simd.mul_f32s(far, x[1]));
    let far_even = simd.mul_add_e_f32s(half, x[2], x[4]);
    let far_odd = simd.sub_f32s(simd.mul_f32s(far, x[3]), simd.mul_f32s(near, x[1]));
    [
        simd.mul_add_e_f32s(wide, x[2], simd.add_f32s(x[0], x[4])),
        simd.add_f32s(near_even, near_odd),
        simd.sub_f32s(near_even, near_odd),
        simd.add_f32s(far_even, far_odd),
        simd.sub_f32s(far_even, far_odd),
        simd.mul_add_e_f32s(wide, x[3], simd.add_f32s(x[1], x[5])),
    ]
}

/// Aᵀm, rows (1 1 1 1 1 0), (0 √½ −√½ √2 −√2 0), (0 1/2 1/2 2 2 0), (0 √½/2 −√½/2 2√2 −2√2 1).
#[inline(always)]
pub(super) fn output_line<S: Simd>(simd: S, m: [S::f32s; IN]) -> [S::f32s; OUT] {
    let [near, far, half, two] = [
        simd.splat_f32s(NEAR),
        simd.splat_f32s(FAR),
        simd.splat_f32s(0.5),
        simd.splat_f32s(2.0),
    ];
    let near_sum = simd.add_f32s(m[1], m[2]);
    let near_difference = simd.mul_f32s(near, simd.sub_f32s(m[1], m[2]));
    let far_sum = simd.add_f32s(m[3], m[4]);
    let far_difference = simd.mul_f32s(far, simd.sub_f32s(m[3], m[4]));
    let rest = simd.mul_add_e_f32s(two, far_difference, m[5]);
    [
        simd.add_f32s(m[0], simd.add_f32s(near_sum, far_sum)),
        simd.add_f32s(near_difference, far_difference),
        simd.mul_add_e_f32s(two, far_sum, simd.mul_f32s(half, near_sum)),
        simd.mul_add_e_f32s(half, near_difference, rest),
    ]
}

/// Ay: the transposed of [`output_line`], for gradients of outputs.
#[inline(always)]
pub(super) fn output_gradient_line<S: Simd>(simd: S, y: [S::f32s; OUT]) -> [S::f32s; IN] {
    let [near, far, half, two] = [
        simd.splat_f32s(NEAR),
        simd.splat_f32s(FAR),
        simd.splat_f32s(0.5),
        simd.splat_f32s(2.0),
    ];
    let near_even = simd.mul_add_e_f32s(half, y[2], y[0]);
    let near_odd = simd.mul_f32s(near, simd.mul_add_e_f32s(half, y[3], y[1]));
    let far_even = simd.mul_add_e_f32s(two, y[2], y[0]);
    let far_odd = simd.mul_f32s(far, simd.mul_add_e_f32s(two, y[3], y[1]));
    [
        y[0],
        simd.add_f32s(near_even, near_odd),
        simd.sub_f32s(near_even, near_odd),
        simd.add_f32s(far_even, far_odd),
        simd.sub_f32s(far_even, far_odd),
        y[3],
    ]
}

/// Gw, rows (1 0 0), (−2/3 ∓2√½/3 −1/3), (1/6 ±√2/6 1/3), (0 0 1).
#[inline(always)]
pub(super) fn weight_line<S: Simd>(simd: S, w: [S::f32s; 3]) -> [S::f32s; IN] {
    let third = simd.splat_f32s(1.0 / 3.0);
    let last = simd.mul_f32s(third, w[2]);
    let near_even = simd.mul_add_e_f32s(
        simd.splat_f32s(-2.0 / 3.0),
        w[0],
        simd.sub_f32s(simd.splat_f32s(0.0), last),
    );
    let near_odd = simd.mul_f32s(simd.splat_f32s(-2.0 / 3.0 * NEAR), w[1]);
    let far_even = simd.mul_add_e_f32s(simd.splat_f32s(1.0 / 6.0), w[0], last);
    let far_odd = simd.mul_f32s(simd.splat_f32s(FAR / 6.0), w[1]);
    [
        w[0],
        simd.add_f32s(near_even, near_odd),
        simd.sub_f32s(near_even, near_odd),
        simd.add_f32s(far_even, far_odd),
        simd.sub_f32s(far_even, far_odd),
        w[2],
    ]
}

/// Gᵀu: the transposed of [`weight_line`], for gradients of weights.
#[inline(always)]
pub(super) fn weight_gradient_line<S: Simd>(simd: S, u: [S::f32s; IN]) -> [S::f32s; 3] {
    let near_sum = simd.add_f32s(u[1], u[2]);
    let near_difference = simd.sub_f32s(u[1], u[2]);
    let far_sum = simd.add_f32s(u[3], u[4]);
    let far_difference = simd.sub_f32s(u[3], u[4]);
    let first = simd.mul_add_e_f32s(simd.splat_f32s(-2.0 / 3.0), near_sum, u[0]);
    let last = simd.sub_f32s(far_sum, near_sum);
    [
        simd.mul_add_e_f32s(simd.splat_f32s(1.0 / 6.0), far_sum, first),
        simd.mul_add_e_f32s(
            simd.splat_f32s(FAR / 6.0),
            far_difference,
            simd.mul_f32s(simd.splat_f32s(-2.0 / 3.0 * NEAR), near_difference),
        ),
        simd.mul_add_e_f32s(simd.splat_f32s(1.0 / 3.0), last, u[5]),
    ]
}

/// Applies `line` to the columns and then to the rows of a square of vectors.
#[inline(always)]
pub(super) fn both_ways<S: Simd, const FROM: usize, const TO: usize>(
    simd: S,
    square: [[S::f32s; FROM]; FROM],
    line: impl Fn([S::f32s; FROM]) -> [S::f32s; TO],
) -> [[S::f32s; TO]; TO] {
    let zero = simd.splat_f32s(0.0);
    let mut half = [[zero; FROM]; TO];
    for column in 0..FROM {
        let mut values = [zero; FROM];
        for row in 0..FROM {
            values[row] = square[row][column];
        }
        let values = line(values);
        for row in 0..TO {
            half[row][column] = values[row];
        }
    }
    let mut whole = [[zero; TO]; TO];
    for row in 0..TO {
        whole[row] = line(half[row]);
    }
    whole
}
