//! RGB to the bytes of a PNG or JPEG file.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::{DataError, Image};

/// The bytes of a PNG file with these pixels: in grey where all three channels of every pixel are equal, so that decoding it
/// gives the same image in any case. The same image always gives the same bytes.
///
/// # Errors
/// [`DataError::Encode`] if the encoder refuses, as it does for sides of 2^31 and more.
pub fn png(image: &Image) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    write(image, PngEncoder::new(&mut bytes))?;
    Ok(bytes)
}

/// The bytes of a baseline JPEG file: in grey under the condition of [`png`], otherwise with a colour sample for every pixel
/// (4:4:4). `quality` is libjpeg's, 1 to 100.
///
/// # Errors
/// [`DataError::InvalidSetting`] for another quality, [`DataError::Encode`] if the encoder refuses, as it does for sides
/// above 65,535.
pub fn jpeg(image: &Image, quality: u8) -> Result<Vec<u8>, DataError> {
    check_quality(quality)?;
    let mut bytes = Vec::new();
    write(image, JpegEncoder::new_with_quality(&mut bytes, quality))?;
    Ok(bytes)
}

/// The range of [`jpeg`]'s quality; the encoder itself would take the nearest value.
pub(crate) fn check_quality(quality: u8) -> Result<(), DataError> {
    if (1..=100).contains(&quality) {
        return Ok(());
    }
    Err(DataError::setting("quality", "1 to 100", quality))
}

fn write(image: &Image, encoder: impl ImageEncoder) -> Result<(), DataError> {
    let (width, height) = (image.width() as u32, image.height() as u32);
    let pixels = image.pixels();
    let (triples, _) = pixels.as_chunks::<3>();
    let written = if triples.iter().all(|[r, g, b]| r == g && g == b) {
        let grey: Vec<u8> = triples.iter().map(|[grey, ..]| *grey).collect();
        encoder.write_image(&grey, width, height, ExtendedColorType::L8)
    } else {
        encoder.write_image(pixels, width, height, ExtendedColorType::Rgb8)
    };
    written.map_err(|error| DataError::Encode {
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;

    #[test]
    fn a_png_gives_the_same_pixels_back_in_grey_and_in_colour() {
        let colour = Image::new(3, 2, (0..18).map(|value| value * 14).collect()).unwrap();
        let grey = Image::from_grey(3, 2, &[0, 50, 100, 150, 200, 255]).unwrap();
        for (image, colour_type) in [(colour, 2), (grey, 0)] {
            let bytes = png(&image).unwrap();
            // The field of the header, as in the PNG specification, section 11.2.2.
            assert_eq!(bytes[25], colour_type);
            assert_eq!(decode(&bytes, "a picture").unwrap(), image);
        }
    }

    #[test]
    fn a_jpeg_is_as_near_as_its_quality_says() {
        let pixels = (0..48 * 32).flat_map(|at| [at % 48 * 5, at / 48 * 8, 90].map(|v| v as u8));
        let image = Image::new(48, 32, pixels.collect()).unwrap();
        let error = |quality| {
            let bytes = jpeg(&image, quality).unwrap();
            let back = decode(&bytes, "a picture").unwrap();
            assert_eq!((back.width(), back.height()), (48, 32));
            let both = back.pixels().iter().zip(image.pixels());
            let sum: f64 = both.map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
            (sum / image.pixels().len() as f64, bytes.len())
        };
        let (fine, coarse) = (error(95), error(10));
        assert!(
            fine.0 < 1.5 && coarse.0 > 2.0 * fine.0,
            "{fine:?} {coarse:?}"
        );
        assert!(coarse.1 < fine.1, "{fine:?} {coarse:?}");
        for quality in [0, 101] {
            let message = jpeg(&image, quality).unwrap_err().to_string();
            assert_eq!(
                message,
                format!("quality: expected 1 to 100, got {quality}")
            );
        }
    }
}
