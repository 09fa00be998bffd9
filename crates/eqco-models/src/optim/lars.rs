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

/// Σw² and Σ(g + λw)² in eight independent sums, which vectorise without reordering by the compiler.
#[inline(always)]
fn squared_norms(weight_decay: f64, weight: &[f32], gradient: &[f32]) -> (f64, f64) {
    const SUMS: usize = 8;
    let (mut weight_sums, mut gradient_sums) = ([0f64; SUMS], [0f64; SUMS]);
    for (weight, gradient) in weight.chunks(SUMS).zip(gradient.chunks(SUMS)) {
        for (lane, (w, g)) in weight.iter().zip(gradient).enumerate() {
            let w = f64::from(*w);
            let g = f64::from(*g) + weight_decay * w;
            weight_sums[lane] += w * w;
            gradient_sums[lane] += g * g;
        }
    }
    (weight_sums.iter().sum(), gradient_sums.iter().sum())
}
