//! The passes over ResNet-50's parameters that end a step.

use anyhow::Result;
use eqco_models::momentum_encoder::ema_update;

use super::{Scale, seconds_per_call};
use crate::gpu_check::kernels::Place;
use crate::gpu_check::network_step::NetworkStep;
use crate::gpu_check::outcome::{Measurement, Outcome, Work};

/// Name of the measurement of both updates, one after the other.
pub const UPDATES: &str = "SGD + momentum encoder, ResNet-50";

/// Arrays read and written by SGD (value, gradient and velocity, two of them written), and by the momentum encoder.
const PASSES: [u64; 2] = [5, 3];

pub(super) fn measure(place: Place<'_>, scale: Scale) -> Result<Outcome> {
    // A step of a few small images, for the gradients.
    let mut network = NetworkStep::new(place, scale, [2, 64])?;
    network.step()?;
    let momentum = network.encoder.duplicate()?;
    let bytes = 4 * network.encoder.parameters().scalar_count() as u64;
    let (parameters, device) = (network.encoder.parameters(), place.device);
    let optimizer = &mut network.optimizer;
    let gradients = &network.gradients;
    let sgd = seconds_per_call(device, || Ok(optimizer.step(parameters, gradients, 1e-6)?))?;
    let moving = seconds_per_call(device, || {
        Ok(ema_update(
            momentum.parameters(),
            parameters,
            0.99,
            place.backend,
        )?)
    })?;
    let both = seconds_per_call(device, || {
        optimizer.step(parameters, gradients, 1e-6)?;
        Ok(ema_update(
            momentum.parameters(),
            parameters,
            0.99,
            place.backend,
        )?)
    })?;
    let measured = [
        ("SGD, ResNet-50", sgd, PASSES[0]),
        ("momentum encoder, ResNet-50", moving, PASSES[1]),
        (UPDATES, both, PASSES[0] + PASSES[1]),
    ];
    let measurements = measured.map(|(name, seconds, passes)| Measurement {
        name: name.to_owned(),
        milliseconds: 1e3 * seconds,
        work: Work::Bytes(passes * bytes),
    });
    Ok(Outcome {
        measurements: measurements.into(),
        ..Outcome::default()
    })
}
