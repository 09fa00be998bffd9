//! Views made on a device beside those of the loader: what both come from.

use std::sync::Arc;

use anyhow::Result;
use candle_core::Device;
use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::{Recipe, RecipeConfig};
use eqco_models::backend::Backend;
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, Precision, ProjectionHeadConfig,
};

use super::Pictures;

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

/// As small as can be: only its way of uploading counts.
pub(super) fn encoder(precision: Precision, device: &Device, backend: &Backend) -> Result<Encoder> {
    let config = EncoderConfig::cifar(Architecture::Resnet18, 4);
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
