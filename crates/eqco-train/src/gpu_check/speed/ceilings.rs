//! What a device can do: copies within its memory, and matrix products.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

use super::{Scale, noise, seconds_per_call};
use crate::gpu_check::kernels::Place;
use crate::gpu_check::outcome::{Measurement, Outcome, Work};

/// Name of the copy's measurement.
pub const COPY: &str = "copy within memory";
/// Name of the measurement of a product of bf16.
pub const PRODUCT_IN_BF16: &str = "matrix product, bf16";
/// Name of the measurement of a product of f32.
pub const PRODUCT_IN_F32: &str = "matrix product, f32";

pub(super) fn measure(place: Place<'_>, scale: Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let elements = scale.of(1 << 27, 1 << 8);
    let bytes = 2 * elements * size_of::<f32>();
    outcome.measurements.push(Measurement {
        name: COPY.to_owned(),
        milliseconds: 1e3 * copy_seconds(place.device, elements)?,
        work: Work::Bytes(bytes as u64),
    });
    let side = scale.of(8192, 16);
    let flops = 2 * (side as u64).pow(3);
    let products = [
        (PRODUCT_IN_BF16, DType::BF16, Work::FlopsInBf16(flops)),
        (PRODUCT_IN_F32, DType::F32, Work::FlopsInF32(flops)),
    ];
    for (name, dtype, work) in products {
        if place.device.is_cpu() && dtype == DType::BF16 {
            // candle has no such product on the CPU.
            continue;
        }
        let left = noise(&[side, side], place)?.to_dtype(dtype)?;
        let right = noise(&[side, side], place)?.to_dtype(dtype)?;
        let seconds = seconds_per_call(place.device, || {
            left.matmul(&right)?;
            Ok(())
        })?;
        outcome.measurements.push(Measurement {
            name: name.to_owned(),
            milliseconds: 1e3 * seconds,
            work,
        });
    }
    Ok(outcome)
}

/// Bytes a second, read and written, of copies within the device's memory.
///
/// # Errors
/// When the device has no room for half a gibibyte twice.
pub fn copy_rate(device: &Device) -> Result<f64> {
    const ELEMENTS: usize = 1 << 27;
    let bytes = 2 * ELEMENTS * size_of::<f32>();
    Ok(bytes as f64 / copy_seconds(device, ELEMENTS)?)
}

/// Into memory of their own, which is that of the copy before: a driver's copy, where `slice_set` is a kernel at half its rate.
fn copy_seconds(device: &Device, elements: usize) -> Result<f64> {
    let source = Tensor::ones(elements, DType::F32, device)?;
    seconds_per_call(device, || Ok(source.copy().map(drop)?))
}
