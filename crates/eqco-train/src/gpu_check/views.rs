//! Views made on a device beside those of the loader.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_models::backend::Backend;
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, Precision, ProjectionHeadConfig,
    Stem,
};

use super::Pictures;
use crate::views::both_views;

/// Images of a comparison, and of a batch.
const COUNT: usize = 24;
const BATCH: usize = 12;
/// Odd sizes, (width, height): single pixels, single lines, and larger and smaller than views in both directions.
const SIZES: [(usize, usize); 6] = [(1, 1), (500, 9), (33, 47), (65, 65), (2, 130), (90, 64)];

/// How many values of an epoch's views differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewAgreement {
    /// Normalised values whose bits are others than the CPU's: none is expected.
    pub differing: usize,
    /// All of them.
    pub values: usize,
}

/// Makes both views of images of many sizes on `device`, and beside it in the loader.
///
/// # Errors
/// When the recipe or the size is refused, or a view cannot be made.
pub fn compare_views(
    recipe: RecipeName,
    image_size: usize,
    precision: Precision,
    device: &Device,
    backend: &Backend,
) -> Result<ViewAgreement> {
    let cpu = encoder(precision, &Device::Cpu, &Backend::Portable)?;
    let other = encoder(precision, device, backend)?;
    let mut config = RecipeConfig::new(recipe, image_size);
    config.solarize_probability = Some(0.2);
    let pictures = Pictures {
        sizes: SIZES.to_vec(),
        count: COUNT,
    };
    let [finished, decoded] = loaders(config, pictures, BATCH)?;
    let mut agreement = ViewAgreement {
        differing: 0,
        values: 0,
    };
    for (finished, decoded) in finished.epoch(0, 0).zip(decoded.epoch(0, 0)) {
        let expected = both_views(&cpu, &finished?, image_size)?;
        let made = both_views(&other, &decoded?, image_size)?;
        for (expected, made) in expected.iter().zip(&made) {
            ensure!(
                expected.dims() == made.dims() && expected.dtype() == made.dtype(),
                "expected {expected:?}, found {made:?}"
            );
            let (expected, made) = (bits(expected)?, bits(made)?);
            agreement.values += expected.len();
            agreement.differing += expected.iter().zip(&made).filter(|(a, b)| a != b).count();
        }
    }
    Ok(agreement)
}

/// The same loader twice: of finished views, and of decoded images.
///
/// # Errors
/// When a setting is refused.
pub fn loaders(config: RecipeConfig, pictures: Pictures, batch_size: usize) -> Result<[Loader; 2]> {
    let views = vec![Recipe::new(config)?; 2];
    let dataset = Arc::new(pictures);
    let settings = LoaderConfig {
        batch_size,
        workers: 1,
        seed: 3,
        ..LoaderConfig::default()
    };
    Ok([
        Loader::new(dataset.clone(), views.clone(), settings.clone())?,
        Loader::of_decoded(dataset, &views, settings)?,
    ])
}

/// Milliseconds to upload a batch of 256 images of 500 x 400 pixels and to make both views of MoCo v2, 224 pixels, bf16.
///
/// # Errors
/// When the device has no room for them.
pub fn view_time(device: &Device, backend: &Backend, batches: u32) -> Result<f64> {
    const IMAGES: usize = 256;
    const SIDE: usize = 224;
    let encoder = encoder(Precision::Bf16, device, backend)?;
    let pictures = Pictures {
        sizes: vec![(500, 400)],
        count: IMAGES,
    };
    let recipe = RecipeConfig::new(RecipeName::MocoV2, SIDE);
    let [_, loader] = loaders(recipe, pictures, IMAGES)?;
    let batch = loader
        .epoch(0, 0)
        .next()
        .context("an epoch has a batch")??;
    both_views(&encoder, &batch, SIDE)?;
    device.synchronize()?;
    let start = Instant::now();
    for _ in 0..batches {
        both_views(&encoder, &batch, SIDE)?;
    }
    device.synchronize()?;
    Ok(1000.0 * start.elapsed().as_secs_f64() / f64::from(batches.max(1)))
}

/// As small as can be: only its way of uploading counts.
fn encoder(precision: Precision, device: &Device, backend: &Backend) -> Result<Encoder> {
    let config = EncoderConfig {
        architecture: Architecture::Resnet18,
        width: 4,
        stem: Stem::Cifar,
        zero_init_residual: false,
    };
    let head = ProjectionHeadConfig {
        kind: HeadKind::Mlp,
        hidden_dim: 0,
        embedding_dim: 8,
    };
    let encoder = Encoder::new(&config, &head, Normalization::IMAGENET, 1, device)?;
    Ok(encoder
        .with_backend(backend.clone())
        .with_precision(precision))
}

/// Every bit of a tensor, in host memory; bf16 is widened exactly.
fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    let values = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let values = values.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.into_iter().map(f32::to_bits).collect())
}
