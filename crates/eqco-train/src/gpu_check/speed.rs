//! How fast a device copies, and how fast it trains.

use std::time::Instant;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use eqco_models::backend::Backend;

use super::Problem;

/// Steps before the clock runs: algorithms are chosen and memory is allocated in them.
const WARM_UP: u64 = 5;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Images a second, both views of an image counting as one.
    pub images_per_second: f64,
    /// Milliseconds a step, with the upload of its views and the loss read back.
    pub step_milliseconds: f64,
}

/// Bytes a second, read and written, of copies within the device's memory.
///
/// # Errors
/// When the device has no room for half a gibibyte twice.
pub fn copy_rate(device: &Device) -> Result<f64> {
    const ELEMENTS: usize = 1 << 27;
    const COPIES: usize = 20;
    let source = Tensor::zeros(ELEMENTS, DType::F32, device)?;
    let target = Tensor::ones(ELEMENTS, DType::F32, device)?;
    target.slice_set(&source, 0, 0)?;
    device.synchronize()?;
    let start = Instant::now();
    for _ in 0..COPIES {
        target.slice_set(&source, 0, 0)?;
    }
    device.synchronize()?;
    let bytes = 2 * COPIES * ELEMENTS * size_of::<f32>();
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

/// Times whole steps of `problem`, with images that wait in host memory.
///
/// # Errors
/// When a step fails.
pub fn step_rate(
    problem: &Problem,
    device: &Device,
    backend: &Backend,
    steps: u64,
) -> Result<Speed> {
    let mut state = problem.on(device, backend)?;
    let views = state.views(0);
    for step in 0..WARM_UP {
        state.step(step, &views)?;
    }
    device.synchronize()?;
    let start = Instant::now();
    for step in 0..steps {
        state.step(WARM_UP + step, &views)?;
    }
    device.synchronize()?;
    let seconds = start.elapsed().as_secs_f64() / steps.max(1) as f64;
    Ok(Speed {
        images_per_second: problem.batch_size as f64 / seconds,
        step_milliseconds: 1000.0 * seconds,
    })
}
