//! The momentum encoder's update.

use eqco_models::momentum_encoder::ema_update;

use super::KernelCheck;
use super::parameters::{SmallNetwork, quantities};

/// A multiplication and two sums: f32 has 6e-8.
const A_FEW_ROUNDINGS: f64 = 1e-6;

pub(super) fn checks(seed: u64) -> Vec<KernelCheck> {
    let coefficients = [0.0, 0.99, 1.0].into_iter();
    coefficients.map(|kept| check(seed, kept)).collect()
}

fn check(seed: u64, kept: f64) -> KernelCheck {
    KernelCheck::new(format!("{kept} kept, 3 updates"), move |place| {
        let target = SmallNetwork::new(seed, place.device)?;
        for update in 1..=3 {
            let source = SmallNetwork::new(seed + update, place.device)?;
            ema_update(&target.set, &source.set, kept, place.backend)?;
        }
        quantities(target.set.to_named()?, A_FEW_ROUNDINGS)
    })
}
