//! Whether the run was worth it: the encoder after training beside itself before training and beside raw pixels.

use anyhow::Result;
use eqco_eval::{Comparison, EvalImages, compare, raw_pixels, represent};
use eqco_models::Encoder;

use crate::config::TrainConfig;
use crate::progress::Progress;
use crate::step::untrained_encoder;

/// Measures the three representations in the same way.
///
/// # Errors
/// Those of reading the images and of the two evaluations.
pub fn measure(
    config: &TrainConfig,
    encoder: &Encoder,
    images: &EvalImages,
    progress: &mut Progress,
) -> Result<Comparison> {
    let total = images.count();
    let mut represented = |encoder: &Encoder, name: &str| {
        let mut show = |done| {
            progress.update_task(&format!("representing images, {name} encoder"), done, total)
        };
        represent(encoder, &format!("{name} encoder"), images, &mut show)
            .map(|found| found.features)
    };
    let pretrained = represented(encoder, "pre-trained")?;
    let untrained = represented(&untrained_encoder(config)?, "untrained")?;
    let pixels = raw_pixels(images)?;
    progress.update_task("kNN and linear probe", 0, total);
    let comparison = compare(&pretrained, &untrained, &pixels, &config.evaluation)?;
    progress.clear();
    Ok(comparison)
}
