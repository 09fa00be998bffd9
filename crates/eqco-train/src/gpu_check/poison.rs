//! NaN in memory that will be handed out next.

use anyhow::Result;
use candle_core::{Device, Tensor};

/// Fills and frees memory of a GPU, so that what is allocated next was NaN: what is freed in a stream is handed out again in it,
/// as long as nobody waits for the device in between. Does nothing on the CPU, whose allocator tells nothing about what comes.
///
/// # Errors
/// When the device cannot allocate.
pub(super) fn poison_freed_memory(device: &Device) -> Result<()> {
    if device.is_cpu() {
        return Ok(());
    }
    const BLOCKS: usize = 8;
    let mut blocks = Vec::new();
    // From a kilobyte to 16 megabytes, and all of a size at a time: blocks of one size lie in one place.
    for elements in [1 << 8, 1 << 12, 1 << 16, 1 << 20, 1 << 22] {
        for _ in 0..BLOCKS {
            blocks.push(Tensor::full(f32::NAN, elements, device)?);
        }
    }
    Ok(())
}
