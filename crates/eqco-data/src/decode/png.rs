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
    let decoded = DynamicImage::from_decoder(decoder).map_err(as_text)?;
    Ok((
        width as usize,
        height as usize,
        decoded.into_rgb8().into_raw(),
    ))
}
