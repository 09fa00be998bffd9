//! Images from host memory.

use anyhow::Result;
use eqco_models::{Normalization, Precision};

use super::{Scale, seconds_per_call};
use crate::gpu_check::kernels::Place;
use crate::gpu_check::outcome::{Measurement, Outcome, Work};
use crate::gpu_check::random::Draw;

pub(super) fn measure(place: Place<'_>, scale: Scale) -> Result<Outcome> {
    let (images, side) = (scale.of(256, 2), scale.of(224, 8));
    let pixels = Draw::new(0, "pixels").bytes(images * side * side * 3);
    let seconds = seconds_per_call(place.device, || {
        let precision = Precision::Bf16;
        Normalization::IMAGENET.upload(&pixels, side, precision, place.device, place.backend)?;
        Ok(())
    })?;
    let measurement = Measurement {
        name: "upload 256x224x224x3".to_owned(),
        milliseconds: 1e3 * seconds,
        work: Work::HostBytes(pixels.len() as u64),
    };
    Ok(Outcome {
        measurements: vec![measurement],
        ..Outcome::default()
    })
}
