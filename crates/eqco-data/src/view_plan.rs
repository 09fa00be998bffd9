//! One view of one image after all dice have fallen.

use crate::Image;
use crate::augment::{
    Adjustments, Blur, Region, gaussian_blur, horizontal_flip, resized_crop, solarize,
    to_grayscale, with_scratch,
};

/// Everything random about a view. Fields stand in the order in which they are applied.
///
/// Whoever has the decoded image can make the view from this, to the byte: [`ViewPlan::render`] does, and so can a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewPlan {
    /// The part of the image that is resized to the view.
    pub region: Region,
    /// Whether it is mirrored left to right.
    pub flip: bool,
    /// What happens to its colours, in this order.
    pub jitter: Adjustments,
    /// Whether it loses its colours.
    pub grayscale: bool,
    /// How it is blurred.
    pub blur: Option<Blur>,
    /// Values from here on are inverted.
    pub solarize: Option<u8>,
}

impl ViewPlan {
    /// Makes the view of `image` in `out` (RGB, `[image_size, image_size, 3]`).
    ///
    /// Working memory is kept per thread, so that nothing is allocated from the second call on.
    ///
    /// # Panics
    /// If the region does not lie inside the image or `out` has another length.
    pub fn render(&self, image: &Image, image_size: usize, out: &mut [u8]) {
        with_scratch(|scratch| {
            resized_crop(image, self.region, (image_size, image_size), scratch, out);
            if self.flip {
                horizontal_flip(out, image_size);
            }
            self.jitter.apply(out);
            if self.grayscale {
                to_grayscale(out);
            }
            if let Some(Blur { kernel_size, sigma }) = self.blur {
                gaussian_blur(out, image_size, kernel_size, sigma, scratch);
            }
            if let Some(threshold) = self.solarize {
                solarize(out, threshold);
            }
        });
    }
}
