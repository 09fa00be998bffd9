//! Random resized crop.

use rand_chacha::ChaCha8Rng;

use super::Region;
use crate::random::{below, uniform};

/// A crop of random area and aspect ratio, resized to a fixed size; torchvision's
/// `RandomResizedCrop(size, scale, ratio)` with antialiased bilinear interpolation.
#[derive(Clone, Copy, Debug)]
pub struct RandomResizedCrop {
    /// Side of the square result, in pixels.
    pub size: usize,
    /// Range of the crop's area as a share of the image's, 0 to 1.
    pub scale: [f64; 2],
    /// Range of the crop's width over height, drawn uniformly in the logarithm.
    pub ratio: [f64; 2],
}

impl RandomResizedCrop {
    /// Draws a region of an image of `(width, height)` pixels: up to ten tries, then
    /// [`RandomResizedCrop::fallback_region`].
    pub fn draw_region(&self, (width, height): (usize, usize), rng: &mut ChaCha8Rng) -> Region {
        let area = (width * height) as f64;
        let log_ratio = self.ratio.map(f64::ln);
        for _ in 0..10 {
            let target_area = area * uniform(rng, self.scale[0], self.scale[1]);
            let aspect_ratio = uniform(rng, log_ratio[0], log_ratio[1]).exp();
            let crop_width = (target_area * aspect_ratio).sqrt().round_ties_even() as usize;
            let crop_height = (target_area / aspect_ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
                let top = below(rng, (height - crop_height + 1) as u32) as usize;
                let left = below(rng, (width - crop_width + 1) as u32) as usize;
                return Region {
                    left,
                    top,
                    width: crop_width,
                    height: crop_height,
                };
            }
        }
        self.fallback_region((width, height))
    }

    /// The largest region in the middle of the image whose aspect ratio is within `ratio`.
    pub fn fallback_region(&self, (width, height): (usize, usize)) -> Region {
        let image_ratio = width as f64 / height as f64;
        let (crop_width, crop_height) = if image_ratio < self.ratio[0] {
            (
                width,
                (width as f64 / self.ratio[0]).round_ties_even() as usize,
            )
        } else if image_ratio > self.ratio[1] {
            (
                (height as f64 * self.ratio[1]).round_ties_even() as usize,
                height,
            )
        } else {
            (width, height)
        };
        let (crop_width, crop_height) = (crop_width.clamp(1, width), crop_height.clamp(1, height));
        Region {
            left: (width - crop_width) / 2,
            top: (height - crop_height) / 2,
            width: crop_width,
            height: crop_height,
        }
    }
}
