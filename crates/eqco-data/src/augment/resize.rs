//! Resize.

use super::{Region, Scratch, resized_crop};
use crate::Image;

/// Resizes a whole image to `width` x `height` (antialiased bilinear); `out` is RGB,
/// `[height, width, 3]`.
///
/// # Panics
/// If `out` has another length.
pub fn resize(image: &Image, size: (usize, usize), scratch: &mut Scratch, out: &mut [u8]) {
    resized_crop(image, Region::whole(image), size, scratch, out);
}

/// Width and height after scaling an image so that its shorter side has `side` pixels, as
/// torchvision's `Resize(side)`: the longer side is cut to a whole number of pixels.
pub fn shorter_side_to(side: usize, (width, height): (usize, usize)) -> (usize, usize) {
    if width <= height {
        (side, (side as f64 * height as f64 / width as f64) as usize)
    } else {
        ((side as f64 * width as f64 / height as f64) as usize, side)
    }
}
