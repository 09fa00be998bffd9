//! Both views of a batch on the encoder's device, wherever they are made.

use anyhow::{Result, bail};
use candle_core::Tensor;
use eqco_data::ViewPlan;
use eqco_data::augment::{self, Blur, Region, hue_steps};
use eqco_data::loader::{Batch, Content};
use eqco_models::Encoder;
use eqco_models::augment::{Adjustment, Crop, SourceImages, View};

/// Query and key views `[N,S,S,3]` of a batch with two recipes, normalised, in the encoder's precision: uploaded if the batch
/// holds them, made on the device if it holds the decoded images. They are the same to the bit.
///
/// # Errors
/// When the batch has not two views, its views have another size, or the device cannot make them.
pub fn both_views(encoder: &Encoder, batch: &Batch, image_size: usize) -> Result<[Tensor; 2]> {
    match &batch.content {
        Content::Views(views) => {
            let [query, key] = two(views)?;
            let upload = |pixels: &[u8]| encoder.upload(pixels, image_size);
            Ok([upload(query)?, upload(key)?])
        }
        Content::Decoded(images) => {
            let [query, key] = two(&images.plans)?;
            let source = SourceImages::new(&images.pixels, &images.sizes)?;
            let (query, key) = (device_views(query), device_views(key));
            let made = encoder.augment(&source, &[&query, &key], image_size)?;
            let [query, key] = two(&made)?;
            Ok([query.clone(), key.clone()])
        }
    }
}

fn two<T>(views: &[T]) -> Result<[&T; 2]> {
    let [query, key] = views else {
        bail!("expected a batch with two views, found {}", views.len());
    };
    Ok([query, key])
}

/// Plans as the kernels take them.
pub fn device_views(plans: &[ViewPlan]) -> Vec<View> {
    plans.iter().map(device_view).collect()
}

fn device_view(plan: &ViewPlan) -> View {
    let Region {
        left,
        top,
        width,
        height,
    } = plan.region;
    // The transforms on the CPU compute with factors of 32 bits, too.
    let adjustment = |adjustment| match adjustment {
        augment::Adjustment::Brightness(factor) => Adjustment::Brightness(factor as f32),
        augment::Adjustment::Contrast(factor) => Adjustment::Contrast(factor as f32),
        augment::Adjustment::Saturation(factor) => Adjustment::Saturation(factor as f32),
        augment::Adjustment::Hue(factor) => Adjustment::Hue(hue_steps(factor)),
    };
    View {
        crop: Crop {
            left,
            top,
            width,
            height,
        },
        flip: plan.flip,
        adjustments: plan.jitter.iter().map(adjustment).collect(),
        grayscale: plan.grayscale,
        half_kernel: plan.blur.as_ref().map_or_else(Vec::new, Blur::half_kernel),
        solarize: plan.solarize,
    }
}
