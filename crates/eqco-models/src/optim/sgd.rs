//! One SGD update, in PyTorch's form: g ← g + λw, v ← μv + g, w ← w − lr·v.
//!
//! The learning rate stays outside the velocity, so a schedule acts at once on all of it (Sutskever et al.'s form keeps
//! it inside; the two part as soon as the learning rate changes). Nesterov: w ← w − lr·(g + μv) with the new v.

use rayon::prelude::*;

use super::SgdConfig;
use crate::ops::lanes::{CHUNK, vectorized};

/// Updates `weight` and `velocity` in one pass.
pub(super) fn update(
    config: &SgdConfig,
    weight_decay: f64,
    learning_rate: f64,
    weight: &mut [f32],
    velocity: &mut [f32],
    gradient: &[f32],
) {
    let (decay, momentum, rate) = (
        weight_decay as f32,
        config.sgd_momentum as f32,
        learning_rate as f32,
    );
    let nesterov = config.nesterov;
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
                        let g = g + decay * *w;
                        *v = momentum * *v + g;
                        *w -= rate * if nesterov { g + momentum * *v } else { *v };
                    }
                },
            );
        });
}
