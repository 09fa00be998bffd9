//! Whether the run was worth it: the encoder after training, beside itself before training and raw pixels if these
//! baselines are wanted.

use anyhow::Result;
use eqco_eval::{Comparison, EvalImages, compare, raw_pixels, represent};
use eqco_models::{Encoder, Precision};

use crate::config::TrainConfig;
use crate::progress::Progress;
use crate::step::untrained_encoder;

/// Measures all representations in the same way, in f32 as `eqco-eval` does, whatever the run's precision.
///
/// # Errors
/// Those of reading the images and of the two evaluations.
pub fn measure(
    config: &TrainConfig,
    encoder: &Encoder,
    images: &EvalImages,
    progress: &mut Progress,
) -> Result<Comparison> {
    let (total, baselines) = (images.count() as f64, config.run.baselines);
    let mut represented = |encoder: &Encoder, name: &str| {
        let name = format!("{name} encoder");
        let mut show = |done| progress.update_task(&name, Some(done as f64 / total));
        represent(encoder, &name, images, &mut show).map(|found| found.features)
    };
    let encoder = encoder.clone().with_precision(Precision::F32);
    let pretrained = represented(&encoder, "pre-trained")?;
    let (untrained, pixels) = if baselines {
        let untrained = untrained_encoder(config, encoder.device())?;
        let untrained = untrained.with_backend(encoder.backend().clone());
        let untrained = represented(&untrained, "untrained")?;
        (Some(untrained), Some(raw_pixels(images)?))
    } else {
        (None, None)
    };
    progress.update_task("kNN and linear probe", None);
    let comparison = compare(
        &pretrained,
        untrained.as_ref(),
        pixels.as_ref(),
        &config.evaluation,
    )?;
    progress.clear();
    Ok(comparison)
}
