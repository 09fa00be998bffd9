//! JPEG: baseline files through our own decoder, which computes only the part that is needed; all others (progressive, CMYK,
//! several scans) through zune-jpeg, with its silence about missing pixels broken.
//!
//! `header`, `huffman`, `scan`, `idct` and `color` are the own decoder, in the order of the data. Its pixels are those of
//! libjpeg-turbo with its default settings, to the bit.

mod color;
mod header;
mod huffman;
mod idct;
mod scan;
mod structure;

use std::cell::RefCell;

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{Decoded, MAX_SIDE, check_size};
use crate::augment::Region;
use color::ColorScratch;
use header::Header;
pub(in crate::decode) use header::size;
use scan::ScanScratch;
use structure::Structure;

/// Zero bytes in the place of the end marker: more than the decoder reads ahead.
const PADDING: usize = 16;

/// Decodes a whole file.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    decode_part(bytes, None, Vec::new()).unwrap_or_else(|| decode_other(bytes))
}

/// Decodes the part `needed` of a JPEG file of at least that size into `memory`, RGB, `[height, width, 3]`, if our own decoder
/// can; `None` where it cannot. A file that ends too early is an error even where it lacks nothing that is needed, unless an
/// end marker hides it.
pub(super) fn decode_part(
    bytes: &[u8],
    needed: Option<Region>,
    memory: Vec<u8>,
) -> Option<Decoded> {
    thread_local! {
        static SCRATCH: RefCell<(ScanScratch, ColorScratch)> = RefCell::default();
    }
    let header = Header::read(bytes)?;
    let needed = needed.unwrap_or(Region {
        left: 0,
        top: 0,
        width: header.width,
        height: header.height,
    });
    let decode = |scan_scratch: &mut ScanScratch, color_scratch: &mut ColorScratch| {
        check_size(header.width, header.height)?;
        if !Structure::of(bytes)?.one_sequential_scan {
            return Ok(None);
        }
        scan::decode(bytes, &header, needed, scan_scratch)?;
        let mut pixels = memory;
        pixels.resize(needed.width * needed.height * 3, 0);
        color::convert(
            &header,
            &scan_scratch.planes,
            needed,
            color_scratch,
            &mut pixels,
        );
        Ok(Some((needed.width, needed.height, pixels)))
    };
    SCRATCH
        .with_borrow_mut(|(scan_scratch, color_scratch)| decode(scan_scratch, color_scratch))
        .transpose()
}

/// Decodes a whole JPEG file through zune-jpeg, or says what is missing.
///
/// zune-jpeg fills missing rows with grey and calls it a success. Its strict mode reports data
/// that end too early, but not an end marker that comes too early. So where the pixels are in one
/// sequential scan, the decoder is given the data without the marker: if it then wants more than
/// there is, pixels were missing.
fn decode_other(bytes: &[u8]) -> Decoded {
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
    check_length(bytes.len(), width, height)?;
    let pixels = decoder.decode().map_err(as_text)?;
    Ok((width, height, pixels))
}

/// That so many bytes can hold such an image, before memory is taken for it: in any kind of file, each block of 8 x 8 pixels
/// takes a code of its own, of one bit at the least.
fn check_length(bytes: usize, width: usize, height: usize) -> Result<(), String> {
    let blocks = width.div_ceil(8) * height.div_ceil(8);
    if blocks > bytes * 8 {
        return Err(format!(
            "truncated: {bytes} bytes for {width} x {height} pixels"
        ));
    }
    Ok(())
}
