//! The one image type: 8-bit RGB, channels last.

use crate::DataError;
use crate::augment::Region;

/// A decoded image: RGB bytes, row by row, `[height, width, 3]`.
///
/// Always three channels; grey values are repeated. Neither side is ever zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Image {
    /// Wraps `pixels` (RGB, `[height, width, 3]`).
    ///
    /// # Errors
    /// [`DataError::InvalidSetting`] if a side is zero or the number of bytes does not fit.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, DataError> {
        let expected = width
            .checked_mul(height)
            .and_then(|count| count.checked_mul(3));
        if width == 0 || height == 0 || expected != Some(pixels.len()) {
            return Err(DataError::setting(
                "image",
                format!("3 bytes for each of {width} x {height} pixels, neither side zero"),
                format!("{} bytes", pixels.len()),
            ));
        }
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// Repeats grey values `[height, width]` over the three channels.
    ///
    /// # Errors
    /// As [`Image::new`].
    pub fn from_grey(width: usize, height: usize, grey: &[u8]) -> Result<Self, DataError> {
        let mut pixels = vec![0; grey.len() * 3];
        for (pixel, &value) in pixels.chunks_exact_mut(3).zip(grey) {
            pixel.fill(value);
        }
        Self::new(width, height, pixels)
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes, `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The bytes, to use their memory again.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// The pixels of a region that lies inside.
    pub(crate) fn cut(&self, region: Region) -> Self {
        let rows = self.pixels.chunks_exact(self.width * 3);
        let rows = rows.skip(region.top).take(region.height);
        let bytes = region.left * 3..(region.left + region.width) * 3;
        Self {
            width: region.width,
            height: region.height,
            pixels: rows.flat_map(|row| &row[bytes.clone()]).copied().collect(),
        }
    }
}
