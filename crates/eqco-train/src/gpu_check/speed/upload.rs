//! Images from host memory, as finished views or to make views of.

use anyhow::{Context, Result};
use eqco_data::recipe::{RecipeConfig, RecipeName};
use eqco_models::backend::Backend;
use eqco_models::{Normalization, Precision};

use super::{Scale, seconds_per_call};
use crate::gpu_check::Pictures;
use crate::gpu_check::kernels::Place;
use crate::gpu_check::outcome::{Measurement, Outcome, Work};
use crate::gpu_check::random::Draw;
use crate::gpu_check::views::{encoder, loaders};
use crate::views::both_views;

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
    let mut measurements = vec![measurement];
    if let Backend::Cuda(_) = place.backend {
        measurements.push(views(place, scale)?);
    }
    Ok(Outcome {
        measurements,
        ..Outcome::default()
    })
}

/// Decoded images, and both views of MoCo v2 made of them.
fn views(place: Place<'_>, scale: Scale) -> Result<Measurement> {
    let (images, side) = (scale.of(256, 2), scale.of(224, 8));
    let pictures = Pictures {
        sizes: vec![(500, 400)],
        count: images,
    };
    let recipe = RecipeConfig::new(RecipeName::MocoV2, side);
    let [_, loader] = loaders(recipe, pictures, images)?;
    let batch = loader.epoch(0, 0).next();
    let batch = batch.context("an epoch has a batch")??;
    let encoder = encoder(Precision::Bf16, place.device, place.backend)?;
    let seconds = seconds_per_call(place.device, || {
        both_views(&encoder, &batch, side).map(drop)
    })?;
    Ok(Measurement {
        name: "both views of 256 images of 500x400".to_owned(),
        milliseconds: 1e3 * seconds,
        work: Work::HostBytes((images * 500 * 400 * 3) as u64),
    })
}
