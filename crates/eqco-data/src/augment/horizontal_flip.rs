//! Horizontal flip.

use rand_chacha::ChaCha8Rng;

use super::pixels_mut;
use crate::random::chance;

/// Mirrors RGB bytes `[height, width, 3]` left to right.
pub fn horizontal_flip(rgb: &mut [u8], width: usize) {
    for row in pixels_mut(rgb).chunks_exact_mut(width) {
        row.reverse();
    }
}

/// Flips with a probability; torchvision's `RandomHorizontalFlip(p)`.
#[derive(Clone, Copy, Debug)]
pub struct RandomHorizontalFlip {
    /// Probability of a flip, 0 to 1.
    pub probability: f64,
}

impl RandomHorizontalFlip {
    /// Whether to flip.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> bool {
        chance(rng, self.probability)
    }
}
