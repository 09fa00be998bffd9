//! One AdamW update (Loshchilov and Hutter 2019, algorithm 2), as `torch.optim.AdamW`:
//! w ← w·(1 − lr·λ), m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², w ← w − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).

use rayon::prelude::*;

use super::AdamWConfig;
use crate::ops::lanes::{CHUNK, vectorized};

/// Updates `weight` and both moments in one pass. `step` counts from 1.
#[expect(
    clippy::too_many_arguments,
    reason = "four slices and the numbers that one pass needs"
)]
pub(super) fn update(
    config: &AdamWConfig,
    weight_decay: f64,
    learning_rate: f64,
    step: u64,
    weight: &mut [f32],
    first_moment: &mut [f32],
    second_moment: &mut [f32],
    gradient: &[f32],
) {
    let [beta1, beta2] = config.betas;
    let first_correction = 1.0 - beta1.powf(step as f64);
    let second_correction = 1.0 - beta2.powf(step as f64);
    let keep = (1.0 - learning_rate * weight_decay) as f32;
    let rate = (learning_rate / first_correction) as f32;
    let scale = (1.0 / second_correction.sqrt()) as f32;
    let eps = config.eps as f32;
    let (new1, beta2, new2) = ((1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32);
    (
        weight.par_chunks_mut(CHUNK),
        first_moment.par_chunks_mut(CHUNK),
        second_moment.par_chunks_mut(CHUNK),
        gradient.par_chunks(CHUNK),
    )
        .into_par_iter()
        .for_each(|(weight, first, second, gradient)| {
            vectorized(
                #[inline(always)]
                || {
                    for (((w, m), v), g) in weight.iter_mut().zip(first).zip(second).zip(gradient) {
                        *m += new1 * (g - *m);
                        *v = beta2 * *v + new2 * g * g;
                        *w = keep * *w - rate * *m / (v.sqrt() * scale + eps);
                    }
                },
            );
        });
}
