//! Random shapes and values of the checks: functions of a seed and a name.

use anyhow::Result;
use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of random numbers, the same for the same seed and name.
#[derive(Clone, Debug)]
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    pub(super) fn new(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&hash.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A whole number from `low` to `high`, both possible.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        let count = (high.max(low) - low + 1) as u64;
        low + (self.0.next_u64() % count) as usize
    }

    /// An odd number from `low` to `high`: what divides neither vectors nor blocks.
    pub(super) fn odd(&mut self, low: usize, high: usize) -> usize {
        self.between(low / 2, (high.max(low) - 1) / 2) * 2 + 1
    }

    /// Batch, height and width of maps of so many channels, with about `most` values at most: an even number of images, odd sides.
    pub(super) fn maps(&mut self, channels: usize, most: usize) -> [usize; 3] {
        let longest = ((most / (4 * channels)) as f64).sqrt() as usize;
        let [height, width] = [0; 2].map(|_| self.odd(5, longest.clamp(7, 61)));
        let pairs = (most / (height * width * channels) / 2).clamp(1, 16);
        [2 * self.between(1, pairs), height, width]
    }

    /// Uniform values in `low..high` on the CPU.
    pub(super) fn tensor(&mut self, shape: &[usize], low: f32, high: f32) -> Result<Tensor> {
        let count = shape.iter().product();
        let mut unit = || (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32;
        let values: Vec<f32> = (0..count).map(|_| low + (high - low) * unit()).collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// Rows of length 1, `[rows, width]`, on the CPU.
    pub(super) fn unit_rows(&mut self, rows: usize, width: usize) -> Result<Tensor> {
        let rows = self.tensor(&[rows, width], -1.0, 1.0)?;
        Ok(rows.broadcast_div(&rows.sqr()?.sum_keepdim(1)?.sqrt()?)?)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_follows_from_its_seed_and_its_name() -> Result<()> {
        let first = |seed, name| Draw::new(seed, name).bytes(8);
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
        Ok(())
    }

    #[test]
    fn numbers_are_within_their_bounds_and_reach_them() {
        let mut draw = Draw::new(3, "numbers");
        let mut seen = [false; 10];
        for _ in 0..200 {
            seen[draw.between(2, 4)] = true;
            seen[draw.odd(5, 8)] = true;
        }
        let expected = [2, 3, 4, 5, 7];
        let seen: Vec<usize> = (0..10).filter(|number| seen[*number]).collect();
        assert_eq!(seen, expected);
        for channels in [1, 3, 64] {
            let [batch, height, width] = draw.maps(channels, 20_000);
            assert!(batch % 2 == 0 && height % 2 == 1 && width % 2 == 1);
            assert!(batch * height * width * channels <= 20_000);
        }
    }

    #[test]
    fn rows_have_length_one_and_values_their_range() -> Result<()> {
        let mut draw = Draw::new(3, "values");
        let rows = draw.unit_rows(4, 7)?;
        for length in rows.sqr()?.sum(1)?.to_vec1::<f32>()? {
            assert!((length - 1.0).abs() < 1e-5);
        }
        let values = draw.tensor(&[1000], -1.0, 3.0)?.to_vec1::<f32>()?;
        assert!(values.iter().all(|value| (-1.0..3.0).contains(value)));
        let mean = values.iter().sum::<f32>() / 1000.0;
        assert!((mean - 1.0).abs() < 0.15, "{mean}");
        Ok(())
    }
}
