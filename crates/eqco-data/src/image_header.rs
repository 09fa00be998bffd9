//! What the first bytes of an image file say, without its pixels.

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;

use crate::{DataError, decode};

/// Size and form of an image file, from its header alone: the rest of the file may be damaged or missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Pixels in a row; not checked against any limit.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Format and colours for people: "JPEG", "JPEG, grey", "JPEG, CMYK", "PNG", "PNG, grey" or "WebP".
    pub format: &'static str,
}

impl ImageHeader {
    /// Reads the header of a JPEG, PNG or WebP file, told apart by content; `name` (a path or id) is for the error message.
    ///
    /// # Errors
    /// [`DataError::Decode`] if the bytes are none of these, or end before the header does.
    pub fn of(bytes: &[u8], name: &str) -> Result<Self, DataError> {
        let header = if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            png(bytes)
        } else if bytes.starts_with(&[0xff, 0xd8]) {
            jpeg(bytes)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            let (width, height) = decode::size(bytes, name)?;
            return Ok(Self {
                width,
                height,
                format: "WebP",
            });
        } else {
            Err("neither PNG nor JPEG, and not WebP".to_owned())
        };
        header.map_err(|reason| DataError::Decode {
            image: name.to_owned(),
            reason,
        })
    }
}

fn png(bytes: &[u8]) -> Result<ImageHeader, String> {
    let decoder = PngDecoder::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    let is_grey = matches!(
        decoder.color_type(),
        ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16
    );
    Ok(ImageHeader {
        width: width as usize,
        height: height as usize,
        format: if is_grey { "PNG, grey" } else { "PNG" },
    })
}

fn jpeg(bytes: &[u8]) -> Result<ImageHeader, String> {
    let mut decoder = JpegDecoder::new(ZCursor::new(bytes));
    decoder
        .decode_headers()
        .map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("no frame header")?;
    let format = match decoder.input_colorspace() {
        Some(ColorSpace::Luma | ColorSpace::LumaA) => "JPEG, grey",
        Some(ColorSpace::CMYK | ColorSpace::YCCK) => "JPEG, CMYK",
        _ => "JPEG",
    };
    Ok(ImageHeader {
        width,
        height,
        format,
    })
}
