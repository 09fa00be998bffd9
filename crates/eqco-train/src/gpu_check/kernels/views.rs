//! Both views of images, made by a GPU from decoded images, and by the loader.

use anyhow::{Context, Result};
use candle_core::Device;
use eqco_data::recipe::{RecipeConfig, RecipeName};
use eqco_models::Precision;
use eqco_models::backend::Backend;

use super::{KernelCheck, Place, Quantity};
use crate::gpu_check::poison::poison_freed_memory;
use crate::gpu_check::views::{encoder, loaders};
use crate::gpu_check::{Pictures, random::Draw};
use crate::plan::named;
use crate::views::both_views;

const RECIPES: [RecipeName; 4] = [
    RecipeName::MocoV2,
    RecipeName::Simclr,
    RecipeName::Cifar,
    RecipeName::Fashion,
];
/// Sizes of images, (width, height): single pixels, single lines, and larger and smaller than views in both directions.
const SOURCES: [(usize, usize); 6] = [(1, 1), (500, 9), (33, 47), (65, 65), (2, 130), (90, 64)];

pub(super) fn checks(seed: u64, most: usize) -> Vec<KernelCheck> {
    let mut draw = Draw::new(seed, "views");
    let longest = ((most / (3 * SOURCES.len())) as f64).sqrt() as usize;
    let sides = [1, draw.odd(7, longest.clamp(9, 225)), 32];
    let mut checks = Vec::new();
    for recipe in RECIPES {
        for side in sides {
            for precision in [Precision::F32, Precision::Bf16] {
                checks.push(one(recipe, side, precision));
            }
        }
    }
    checks
}

/// The arithmetic is that of the transforms on the CPU, and so is every bit.
fn one(recipe: RecipeName, side: usize, precision: Precision) -> KernelCheck {
    let name = format!("{}, {side} pixels, {precision:?}", named(&recipe));
    KernelCheck::new(name, move |place| made(recipe, side, precision, place))
}

fn made(
    recipe: RecipeName,
    side: usize,
    precision: Precision,
    place: Place<'_>,
) -> Result<Vec<Quantity>> {
    let mut config = RecipeConfig::new(recipe, side);
    config.solarize_probability = Some(0.2);
    let pictures = Pictures {
        sizes: SOURCES.to_vec(),
        count: 2 * SOURCES.len(),
    };
    let [finished, decoded] = loaders(config, pictures, SOURCES.len())?;
    let loader = match place.backend {
        Backend::Cuda(_) => decoded,
        Backend::Portable | Backend::Onednn(_) => finished,
    };
    let encoder = encoder(precision, place.device, place.backend)?;
    let mut quantities = Vec::new();
    for (number, batch) in loader.epoch(0, 0).enumerate() {
        poison_freed_memory(place.device)?;
        let views = both_views(&encoder, &batch.context("a batch")?, side)?;
        for (view, value) in ["query", "key"].into_iter().zip(views) {
            quantities.push(Quantity {
                name: format!("{view} views of batch {number}"),
                value: value.to_device(&Device::Cpu)?,
                bound: 0.0,
            });
        }
    }
    Ok(quantities)
}
