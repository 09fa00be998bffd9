//! WebP through the `image` crate; of an animation its first picture.

use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder};

use super::{Decoded, check_size};

pub(super) fn size(bytes: &[u8]) -> Result<(usize, usize), String> {
    opened(bytes).map(|(_, size)| size)
}

pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let (decoder, (width, height)) = opened(bytes)?;
    let decoded = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    Ok((width, height, decoded.into_rgb8().into_raw()))
}

type Opened<'a> = (WebPDecoder<Cursor<&'a [u8]>>, (usize, usize));

/// Reads the header, of a file that is as long as it says.
fn opened(bytes: &[u8]) -> Result<Opened<'_>, String> {
    let length = bytes.get(4..8).and_then(|length| length.try_into().ok());
    let length = 8 + u64::from(u32::from_le_bytes(length.ok_or("truncated: no length")?));
    if (bytes.len() as u64) < length {
        return Err(format!("truncated: {} of {length} bytes", bytes.len()));
    }
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    let size = (width as usize, height as usize);
    check_size(size.0, size.1)?;
    Ok((decoder, size))
}
