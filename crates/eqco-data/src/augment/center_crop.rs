//! Centre crop.

use super::Region;

/// The `side` x `side` square in the middle of an image of `(width, height)` pixels, as
/// torchvision's `CenterCrop(side)` (odd margins are rounded to even). Where the image is smaller
/// than the square, the region covers that side wholly.
pub fn center_crop(side: usize, (width, height): (usize, usize)) -> Region {
    let margin =
        |length: usize| (length.saturating_sub(side) as f64 / 2.0).round_ties_even() as usize;
    Region {
        left: margin(width),
        top: margin(height),
        width: side.min(width),
        height: side.min(height),
    }
}
