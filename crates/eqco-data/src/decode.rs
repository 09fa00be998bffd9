//! PNG and JPEG bytes to RGB.
//!
//! The format is told from the content, never from the file name. EXIF orientation is ignored, as
//! torchvision's `ImageFolder` ignores it.

use std::io::Cursor;

use image::{ColorType, DynamicImage, ImageDecoder, Limits};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::{DataError, Image};

/// The longest side that is decoded, in pixels; checked before any pixel memory is allocated.
pub const MAX_SIDE: usize = 16_384;

/// The largest number of pixels that is decoded (96 MB of RGB), checked likewise.
pub const MAX_PIXELS: usize = 1 << 25;

/// Decodes a PNG or JPEG file that is in memory; `name` (a path or id) is for the error message.
///
/// Grey images are repeated over the three channels, transparency is dropped, 16-bit PNGs are
/// rounded to 8 bits, CMYK JPEGs are converted.
///
/// # Errors
/// [`DataError::Decode`] if the bytes are neither format, damaged, truncated, or larger than
/// [`MAX_SIDE`] or [`MAX_PIXELS`].
pub fn decode(bytes: &[u8], name: &str) -> Result<Image, DataError> {
    let decoded = if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        decode_png(bytes)
    } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        decode_jpeg(bytes)
    } else if bytes.is_empty() {
        Err("the file is empty".to_owned())
    } else {
        Err(format!(
            "neither PNG nor JPEG: it begins with {:02x?}",
            &bytes[..bytes.len().min(8)]
        ))
    };
    let (width, height, pixels) = decoded.map_err(|reason| DataError::Decode {
        image: name.to_owned(),
        reason,
    })?;
    Image::new(width, height, pixels)
}

/// Width, height and RGB bytes, or the reason why not.
type Decoded = Result<(usize, usize, Vec<u8>), String>;

fn check_size(width: usize, height: usize) -> Result<(), String> {
    if width > MAX_SIDE || height > MAX_SIDE || width.saturating_mul(height) > MAX_PIXELS {
        return Err(format!(
            "{width} x {height} pixels; the limits are {MAX_SIDE} a side and {MAX_PIXELS} in all"
        ));
    }
    Ok(())
}

fn decode_png(bytes: &[u8]) -> Decoded {
    let as_text = |error: image::ImageError| error.to_string();
    let limits = Limits::default();
    let decoder =
        image::codecs::png::PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(as_text)?;
    let (width, height) = decoder.dimensions();
    check_size(width as usize, height as usize)?;
    let is_rgb = decoder.color_type() == ColorType::Rgb8;
    let decoded = DynamicImage::from_decoder(decoder).map_err(as_text)?;
    let rgb = if is_rgb {
        decoded.into_rgb8()
    } else {
        decoded.to_rgb8()
    };
    Ok((width as usize, height as usize, rgb.into_raw()))
}

fn decode_jpeg(bytes: &[u8]) -> Decoded {
    let as_text = |error: zune_jpeg::errors::DecodeErrors| error.to_string();
    // Strict mode: without it a truncated file comes back as a success with a grey rest.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(as_text)?;
    let (width, height) = decoder.dimensions().ok_or("no frame header")?;
    check_size(width, height)?;
    let pixels = decoder.decode().map_err(as_text)?;
    Ok((width, height, pixels))
}
