//! What becomes of an image when it is packed.

use std::borrow::Cow;

use crate::augment::{resize, with_scratch};
use crate::decode::{MAX_SIDE, decode};
use crate::encode::{self, check_quality};
use crate::{DataError, Dataset, Image, ImageHeader};

/// Makes large images smaller before they are packed, as FFCV's `max_resolution` does.
///
/// An image whose longer side exceeds the limit is resized to it (antialiased, like every transform of this crate) and
/// encoded as JPEG. All others keep their bytes: encoding them again would lose some of the picture for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduction {
    max_side: usize,
    quality: u8,
}

impl Reduction {
    /// Longer sides of at most `max_side` pixels, 1 to [`MAX_SIDE`]; smaller images get the JPEG quality `quality`, 1 to 100.
    ///
    /// # Errors
    /// [`DataError::InvalidSetting`] outside of these ranges.
    pub fn new(max_side: usize, quality: u8) -> Result<Self, DataError> {
        if !(1..=MAX_SIDE).contains(&max_side) {
            return Err(DataError::setting(
                "max-side",
                format!("1 to {MAX_SIDE}"),
                max_side,
            ));
        }
        check_quality(quality)?;
        Ok(Self { max_side, quality })
    }

    /// What results call a data set of such images.
    pub fn name_of(&self, source: &str) -> String {
        format!(
            "{source}, longer side at most {}, JPEG quality {}",
            self.max_side, self.quality
        )
    }

    /// Width and height that an image of `(width, height)` gets; `None` if it keeps its own.
    fn size_of(&self, (width, height): (usize, usize)) -> Option<(usize, usize)> {
        let longer = width.max(height);
        let scaled = |side: usize| {
            let exact = (side * self.max_side) as f64 / longer as f64;
            (exact.round() as usize).max(1)
        };
        (longer > self.max_side).then(|| (scaled(width), scaled(height)))
    }

    /// The JPEG file of an image with this new size.
    fn reduce(&self, image: &Image, size: (usize, usize)) -> Result<Vec<u8>, DataError> {
        let mut pixels = vec![0; size.0 * size.1 * 3];
        with_scratch(|scratch| resize(image, size, scratch, &mut pixels));
        encode::jpeg(&Image::new(size.0, size.1, pixels)?, self.quality)
    }
}

/// An image as it is packed.
#[derive(Debug)]
pub struct StoredImage<'a> {
    /// The bytes of a JPEG or PNG file.
    pub bytes: Cow<'a, [u8]>,
    /// What was done to get them.
    pub change: Change,
}

/// What was done to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: these are the bytes of the source.
    None,
    /// The source holds pixels, which are in a PNG file now.
    Png,
    /// It was made smaller.
    Reduced,
    /// Nothing, since it cannot be decoded for this reason. A run that meets it will count it as it would have counted the
    /// source's file.
    Undecodable(String),
}

/// What is packed of image `index`: its file as it is, a PNG file of the same pixels where the source holds pixels, or, with a
/// `reduction`, a smaller JPEG file of a large image.
///
/// # Errors
/// [`DataError::Io`] if the source cannot be read, those of [`Dataset::image`] where the source holds pixels, and
/// [`DataError::Encode`].
pub fn stored_image(
    dataset: &dyn Dataset,
    index: usize,
    reduction: Option<Reduction>,
) -> Result<StoredImage<'_>, DataError> {
    let Some(bytes) = dataset.encoded(index)? else {
        return of_pixels(&dataset.image(index)?, reduction);
    };
    let Some(reduction) = reduction else {
        return Ok(StoredImage::new(bytes, Change::None));
    };
    let name = dataset.describe(index);
    // Most images of a large set are decoded for nothing if their size is not looked at first.
    if let Ok(header) = ImageHeader::of(&bytes, &name)
        && reduction.size_of((header.width, header.height)).is_none()
    {
        return Ok(StoredImage::new(bytes, Change::None));
    }
    match decode(&bytes, &name) {
        Err(DataError::Decode { reason, .. }) => {
            Ok(StoredImage::new(bytes, Change::Undecodable(reason)))
        }
        Err(error) => Err(error),
        Ok(image) => match reduction.size_of((image.width(), image.height())) {
            None => Ok(StoredImage::new(bytes, Change::None)),
            Some(size) => Ok(StoredImage::new(
                reduction.reduce(&image, size)?,
                Change::Reduced,
            )),
        },
    }
}

fn of_pixels(
    image: &Image,
    reduction: Option<Reduction>,
) -> Result<StoredImage<'static>, DataError> {
    let reduced = reduction.and_then(|r| Some((r, r.size_of((image.width(), image.height()))?)));
    Ok(match reduced {
        Some((reduction, size)) => {
            StoredImage::new(reduction.reduce(image, size)?, Change::Reduced)
        }
        None => StoredImage::new(encode::png(image)?, Change::Png),
    })
}

impl<'a> StoredImage<'a> {
    fn new(bytes: impl Into<Cow<'a, [u8]>>, change: Change) -> Self {
        Self {
            bytes: bytes.into(),
            change,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_is_bounded_and_the_shape_kept() {
        let size = |size| Reduction::new(256, 90).unwrap().size_of(size);
        assert_eq!(size((256, 256)), None);
        assert_eq!(size((3, 256)), None);
        assert_eq!(size((257, 256)), Some((256, 255)));
        assert_eq!(size((500, 375)), Some((256, 192)));
        assert_eq!(size((375, 500)), Some((192, 256)));
        assert_eq!(size((16_384, 1)), Some((256, 1)));
    }

    #[test]
    fn limits_outside_their_ranges_are_refused() {
        for (max_side, quality, setting) in [
            (0, 90, "max-side: expected 1 to 16384, got 0"),
            (16_385, 90, "max-side: expected 1 to 16384, got 16385"),
            (256, 0, "quality: expected 1 to 100, got 0"),
            (256, 101, "quality: expected 1 to 100, got 101"),
        ] {
            let error = Reduction::new(max_side, quality).unwrap_err();
            assert_eq!(error.to_string(), setting);
        }
    }
}
