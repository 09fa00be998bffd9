//! Greyscale.

use rand_chacha::ChaCha8Rng;

use super::{luminance, pixels_mut};
use crate::random::chance;

/// Replaces the three channels by the luminance.
pub fn to_grayscale(rgb: &mut [u8]) {
    for pixel in pixels_mut(rgb) {
        *pixel = [luminance(*pixel); 3];
    }
}

/// Turns grey with a probability; torchvision's `RandomGrayscale(p)`.
#[derive(Clone, Copy, Debug)]
pub struct RandomGrayscale {
    /// Probability of losing the colour, 0 to 1.
    pub probability: f64,
}

impl RandomGrayscale {
    /// Whether to turn grey.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> bool {
        chance(rng, self.probability)
    }
}
