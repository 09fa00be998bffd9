//! One LARS update, in the form of SimCLR's code (`lars_optimizer.py`, its "classic momentum").
//!
//! g ← g + λw, then the layer's rate r = lr · η·‖w‖/‖g‖ (r = lr where a norm is zero or the parameter is excluded), then
//! v ← μv + r·g and w ← w − v. Two things differ from You et al. (2017, algorithm 1) and are easy to mix up: the norm
//! below the fraction is that of the gradient with weight decay added, ‖g + λw‖, not ‖g‖ + λ‖w‖; and the learning rate
//! stands inside the velocity, so a schedule acts on new gradients only.

use rayon::prelude::*;

use super::LarsConfig;
use crate::ops::lanes::{CHUNK, vectorized};
use crate::params::ParameterRole;

/// Sums that the norms are made of.
const SUMS: usize = 8;

/// Updates `weight` and `velocity`: one pass for the norms, one for the update.
pub(super) fn update(
    config: &LarsConfig,
    role: ParameterRole,
    weight_decay: f64,
    learning_rate: f64,
    weight: &mut [f32],
    velocity: &mut [f32],
    gradient: &[f32],
) {
    let scaled = !(config.exclude_norm_and_bias_from_scaling && role.is_excluded_by_convention());
    let trust_ratio = if scaled {
        trust_ratio(config.trust_coefficient, weight_decay, weight, gradient)
    } else {
        1.0
    };
    let (decay, momentum, rate) = (
        weight_decay as f32,
        config.sgd_momentum as f32,
        (learning_rate * trust_ratio) as f32,
    );
    (
        weight.par_chunks_mut(CHUNK),
        velocity.par_chunks_mut(CHUNK),
        gradient.par_chunks(CHUNK),
    )
        .into_par_iter()
        .for_each(|(weight, velocity, gradient)| {
            vectorized(
                #[inline(always)]
                || {
                    for ((w, v), g) in weight.iter_mut().zip(velocity).zip(gradient) {
                        *v = momentum * *v + rate * (g + decay * *w);
                        *w -= *v;
                    }
                },
            );
        });
}

/// η·‖w‖/‖g + λw‖, or 1 where either norm is zero (a fresh zero-initialised layer must be able to move).
fn trust_ratio(trust_coefficient: f64, weight_decay: f64, weight: &[f32], gradient: &[f32]) -> f64 {
    // Chunks are summed in order: the result does not depend on the number of threads.
    let squares: Vec<(f64, f64)> = weight
        .par_chunks(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .map(|(weight, gradient)| {
            vectorized(
                #[inline(always)]
                || squared_norms(weight_decay, weight, gradient),
            )
        })
        .collect();
    let (weight, gradient) = squares.iter().fold((0.0, 0.0), |sum, square| {
        (sum.0 + square.0, sum.1 + square.1)
    });
    if weight > 0.0 && gradient > 0.0 {
        trust_coefficient * (weight / gradient).sqrt()
    } else {
        1.0
    }
}

/// Σw² and Σ(g + λw)² in independent sums, which vectorise without reordering by the compiler.
#[inline(always)]
fn squared_norms(weight_decay: f64, weight: &[f32], gradient: &[f32]) -> (f64, f64) {
    let mut sums = [[0f64; SUMS]; 2];
    let (weight, weight_rest) = weight.as_chunks::<SUMS>();
    let (gradient, gradient_rest) = gradient.as_chunks::<SUMS>();
    for (weight, gradient) in weight.iter().zip(gradient) {
        add_squares(weight_decay, weight, gradient, &mut sums);
    }
    // The rest is shorter than a chunk; zeros add nothing.
    let mut padded = [[0f32; SUMS]; 2];
    padded[0][..weight_rest.len()].copy_from_slice(weight_rest);
    padded[1][..gradient_rest.len()].copy_from_slice(gradient_rest);
    add_squares(weight_decay, &padded[0], &padded[1], &mut sums);
    (sums[0].iter().sum(), sums[1].iter().sum())
}

#[inline(always)]
fn add_squares(
    weight_decay: f64,
    weight: &[f32; SUMS],
    gradient: &[f32; SUMS],
    [weight_sums, gradient_sums]: &mut [[f64; SUMS]; 2],
) {
    for lane in 0..SUMS {
        let w = f64::from(weight[lane]);
        let g = f64::from(gradient[lane]) + weight_decay * w;
        weight_sums[lane] += w * w;
        gradient_sums[lane] += g * g;
    }
}
