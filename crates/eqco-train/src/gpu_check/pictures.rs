//! Images made up for comparisons of views.

use eqco_data::{DataError, Dataset, Image};

/// Images of the given sizes, (width, height), over and over.
#[derive(Clone, Debug)]
pub struct Pictures {
    /// Of one image after the other; there is at least one.
    pub sizes: Vec<(usize, usize)>,
    /// Number of images.
    pub count: usize,
}

impl Dataset for Pictures {
    fn name(&self) -> &str {
        "pictures"
    }
    fn len(&self) -> usize {
        self.count
    }
    fn class_names(&self) -> &[String] {
        &[]
    }
    fn label(&self, _index: usize) -> Option<u32> {
        None
    }
    fn image(&self, index: usize) -> Result<Image, DataError> {
        picture(self.sizes[index % self.sizes.len()], index as u32)
    }
    fn describe(&self, index: usize) -> String {
        format!("picture {index}")
    }
}

/// An image of `(width, height)` pixels: smooth on the left, of random colours on the right, grey and saturated ones among them.
///
/// # Errors
/// When a side is zero.
pub fn picture((width, height): (usize, usize), seed: u32) -> Result<Image, DataError> {
    // Marsaglia's xorshift.
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut pixels = Vec::with_capacity(width * height * 3);
    for place in 0..width * height {
        let (x, y) = (place % width, place / width);
        let noise = random();
        let [a, b, c, _] = noise.to_le_bytes();
        pixels.extend(match (2 * x < width, noise >> 28) {
            (true, _) => [(x * 3) as u8, (y * 5 + x) as u8, (255 - y % 256) as u8],
            (false, 0) => [a, a, a],
            (false, 1) => [a, a, b],
            (false, 2) => [255, 0, c],
            _ => [a, b, c],
        });
    }
    Image::new(width, height, pixels)
}
