//! Bytes of images to normalised activations.

use candle_core::{DType, Device};
use eqco_models::{Normalization, Precision};

use super::{KernelCheck, ONE_ROUNDING_OF_BF16, Quantity};
use crate::gpu_check::poison::poison_freed_memory;
use crate::gpu_check::random::Draw;

/// A multiplication or a division: f32 has 6e-8.
const A_FEW_ROUNDINGS: f64 = 1e-6;

pub(super) fn checks(seed: u64, most: usize) -> Vec<KernelCheck> {
    let mut draw = Draw::new(seed, "upload");
    let longest = ((most / 6) as f64).sqrt() as usize;
    let mut checks = Vec::new();
    for side in [draw.odd(3, longest.clamp(7, 225)), 8] {
        for (precision, bound) in [
            (Precision::F32, A_FEW_ROUNDINGS),
            (Precision::Bf16, ONE_ROUNDING_OF_BF16),
        ] {
            checks.push(upload(seed, side, precision, bound));
        }
    }
    checks
}

fn upload(seed: u64, side: usize, precision: Precision, bound: f64) -> KernelCheck {
    const IMAGES: usize = 3;
    let name = format!("{IMAGES}x{side}x{side}x3, {precision:?}");
    KernelCheck::new(name, move |place| {
        let pixels = Draw::new(seed, "pixels").bytes(IMAGES * side * side * 3);
        poison_freed_memory(place.device)?;
        let images = Normalization::IMAGENET.upload(
            &pixels,
            side,
            precision,
            place.device,
            place.backend,
        )?;
        anyhow::ensure!(
            images.dtype() != DType::F32 || precision == Precision::F32,
            "expected images in {precision:?}, found f32"
        );
        Ok(vec![Quantity {
            name: "images".to_owned(),
            value: images.to_device(&Device::Cpu)?,
            bound,
        }])
    })
}
