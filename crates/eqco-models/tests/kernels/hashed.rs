//! Test values that Python and Rust draw alike.

use candle_core::{Device, Result, Tensor};

/// Uniform values in `[low, high)`: splitmix64 at FNV-1a(`name`), 24 bits each, rounded to f32; `hashed` in
/// `python/golden_ops.py` gives the same bits.
pub fn hashed_values(name: &str, len: usize, low: f64, high: f64) -> Vec<f32> {
    let stream = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (1..=len as u64)
        .map(|counter| {
            let mut z = stream.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            let unit = (z >> 40) as f64 / 2f64.powi(24);
            (low + (high - low) * unit) as f32
        })
        .collect()
}

/// [`hashed_values`] as a tensor.
pub fn hashed_between(name: &str, shape: &[usize], low: f64, high: f64) -> Result<Tensor> {
    let values = hashed_values(name, shape.iter().product(), low, high);
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// [`hashed_between`] −1 and 1.
pub fn hashed(name: &str, shape: &[usize]) -> Result<Tensor> {
    hashed_between(name, shape, -1.0, 1.0)
}
