//! PNG through the `image` crate.

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::{DynamicImage, ImageDecoder, ImageError};

use super::{Decoded, check_size};

pub(super) fn size(bytes: &[u8]) -> Result<(usize, usize), String> {
    let decoder = PngDecoder::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    check_size(width as usize, height as usize)?;
    Ok((width as usize, height as usize))
}

pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let as_text = |error: ImageError| error.to_string();
    let decoder = PngDecoder::new(Cursor::new(bytes)).map_err(as_text)?;
    let (width, height) = decoder.dimensions();
    check_size(width as usize, height as usize)?;
    check_length(bytes.len(), &decoder)?;
    let decoded = DynamicImage::from_decoder(decoder).map_err(as_text)?;
    Ok((
        width as usize,
        height as usize,
        decoded.into_rgb8().into_raw(),
    ))
}

/// That so many bytes can hold such an image, before memory is taken for it: deflate makes at most 1,032 bytes of one.
fn check_length(bytes: usize, decoder: &PngDecoder<Cursor<&[u8]>>) -> Result<(), String> {
    let (width, height) = decoder.dimensions();
    let bits = u64::from(decoder.original_color_type().bits_per_pixel());
    let unpacked = (u64::from(width) * bits).div_ceil(8) * u64::from(height);
    if unpacked > bytes as u64 * 1032 {
        return Err(format!(
            "truncated: {bytes} bytes for {width} x {height} pixels"
        ));
    }
    Ok(())
}
