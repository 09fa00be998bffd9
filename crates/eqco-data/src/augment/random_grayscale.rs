//! Greyscale.

use rand_chacha::ChaCha8Rng;

use super::luminance;
use super::planes::{COUNT, change_planes};
use crate::random::chance;

/// Replaces the three channels by the luminance.
pub fn to_grayscale(rgb: &mut [u8]) {
    change_planes(
        rgb,
        #[inline(always)]
        |[red, green, blue]| {
            for index in 0..COUNT {
                let grey = luminance([red[index], green[index], blue[index]]);
                (red[index], green[index], blue[index]) = (grey, grey, grey);
            }
        },
    );
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
