//! Solarise.

use rand_chacha::ChaCha8Rng;

use crate::random::chance;

/// Inverts every value at or above `threshold` (0 to 255).
pub fn solarize(rgb: &mut [u8], threshold: u8) {
    for value in rgb {
        if *value >= threshold {
            *value = 255 - *value;
        }
    }
}

/// Solarises with a probability; torchvision's `RandomSolarize(threshold, p)`.
#[derive(Clone, Copy, Debug)]
pub struct RandomSolarize {
    /// Values from here on are inverted; 128 in BYOL.
    pub threshold: u8,
    /// Probability, 0 to 1.
    pub probability: f64,
}

impl RandomSolarize {
    /// The threshold, if there is to be one.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Option<u8> {
        chance(rng, self.probability).then_some(self.threshold)
    }
}
