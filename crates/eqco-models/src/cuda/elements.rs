//! Launches over flat arrays and over rows.

use candle_core::{DType, Result, Tensor};
use eqco_core::cuda::{Launch, address, address_mut};

use super::Cuda;

/// Threads of a block.
const THREADS: usize = 256;
/// Elements that a thread takes at a time.
const EIGHT: usize = 8;
/// Blocks that walk over an array of any length: sixteen for each of 132 multiprocessors.
const MOST_BLOCKS: usize = 2112;

/// The kernel for tensors of this type.
pub(crate) fn by_type(dtype: DType, [f32, bf16]: [&'static str; 2]) -> &'static str {
    match dtype {
        DType::BF16 => bf16,
        _ => f32,
    }
}

/// Neighbouring channels that a thread takes: 8 where they divide all.
pub(crate) fn vector_of(channels: usize) -> usize {
    if channels.is_multiple_of(EIGHT) {
        EIGHT
    } else {
        1
    }
}

/// Whether arrays may be read 16 bytes at a time.
pub(super) fn are_aligned(addresses: &[u64]) -> bool {
    addresses.iter().all(|address| address.is_multiple_of(16))
}

/// A launch of one thread for each of `threads`.
pub(crate) fn across(kernel: &'static str, threads: usize) -> Launch {
    Launch::new(kernel)
        .grid(threads.div_ceil(THREADS), 1, 1)
        .block(THREADS, 1)
}

/// Blocks of eight warps, one for each row.
pub(crate) fn a_warp_each(kernel: &'static str, rows: usize) -> Launch {
    Launch::new(kernel)
        .grid(rows.div_ceil(8), 1, 1)
        .block(32, 8)
}

impl Cuda {
    /// Runs `kernel(source, target, count, aligned)`, one of `elements.cu`, over all elements of both, which are as many.
    pub(crate) fn elementwise(
        &self,
        kernel: &'static str,
        source: &Tensor,
        target: &Tensor,
    ) -> Result<()> {
        let launch = elementwise(kernel, source, target)?;
        // SAFETY: both arrays have `count` elements.
        unsafe { self.launch(&launch) }
    }

    /// target (+)= source, from bf16 to f32.
    pub(crate) fn widen(&self, source: &Tensor, target: &Tensor, accumulate: bool) -> Result<()> {
        let launch = elementwise("widen", source, target)?.arg(accumulate);
        // SAFETY: both arrays have `count` elements.
        unsafe { self.launch(&launch) }
    }
}

fn elementwise(kernel: &'static str, source: &Tensor, target: &Tensor) -> Result<Launch> {
    let count = target.elem_count();
    assert_eq!(source.elem_count(), count, "{kernel}");
    let (source, target) = (address(source)?, address_mut(target)?);
    let blocks = count.div_ceil(THREADS * EIGHT).min(MOST_BLOCKS);
    Ok(Launch::new(kernel)
        .grid(blocks, 1, 1)
        .block(THREADS, 1)
        .arg(source)
        .arg(target)
        .arg(count as u64)
        .arg(are_aligned(&[source, target])))
}
