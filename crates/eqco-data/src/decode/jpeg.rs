//! JPEG through zune-jpeg, with its silence about missing pixels broken.

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::jpeg_structure::Structure;
use super::{Decoded, MAX_SIDE, check_size};

/// Zero bytes in the place of the end marker: more than the decoder reads ahead.
const PADDING: usize = 16;

/// Decodes a whole JPEG file, or says what is missing.
///
/// zune-jpeg fills missing rows with grey and calls it a success. Its strict mode reports data
/// that end too early, but not an end marker that comes too early. So where the pixels are in one
/// sequential scan, the decoder is given the data without the marker: if it then wants more than
/// there is, pixels were missing.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let structure = Structure::of(bytes)?;
    if !structure.one_sequential_scan {
        return decode_strictly(&bytes[..structure.end]);
    }
    let mut padded = Vec::with_capacity(structure.end + PADDING);
    padded.extend_from_slice(&bytes[..structure.end - 2]);
    padded.resize(structure.end + PADDING, 0);
    decode_strictly(&padded)
}

fn decode_strictly(bytes: &[u8]) -> Decoded {
    let as_text = |error: DecodeErrors| error.to_string();
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
