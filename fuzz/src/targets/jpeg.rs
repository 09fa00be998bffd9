//! JPEG files, through the functions that the loader calls.

use eqco_data::augment::Region;
use eqco_data::decode;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::reading;

/// Four bytes that choose a part, then a file.
pub fn check(data: &[u8]) {
    let Some((part, file)) = data.split_first_chunk::<4>() else {
        return;
    };
    if !file.starts_with(&[0xff, 0xd8]) {
        return;
    }
    let size = match decode::size(file, "input") {
        Ok(size) => size,
        Err(error) => {
            reading::told(&error);
            assert!(
                decode::decode(file, "input").is_err(),
                "no size, but pixels"
            );
            return;
        }
    };
    let part = region(*part, size);
    let cut = decode::decode_part(file, "input", part, Vec::new());
    match decode::decode(file, "input") {
        Ok(whole) => {
            assert_eq!((whole.width(), whole.height()), size);
            agrees_with_zune(file, size);
            let cut = cut.expect("a part of what can be decoded can be decoded");
            assert_eq!((cut.width(), cut.height()), (part.width, part.height));
            for (row, pixels) in cut.pixels().chunks_exact(part.width * 3).enumerate() {
                let start = ((part.top + row) * size.0 + part.left) * 3;
                assert_eq!(pixels, &whole.pixels()[start..start + pixels.len()]);
            }
        }
        Err(error) => reading::told(&error),
    }
}

/// A part of an image of a size: corner and sides in 256ths.
fn region([left, top, width, height]: [u8; 4], size: (usize, usize)) -> Region {
    let start = |share: u8, whole: usize| whole * usize::from(share) / 256;
    let length = |share: u8, room: usize| (room * usize::from(share) / 255).clamp(1, room);
    let (left, top) = (start(left, size.0), start(top, size.1));
    Region {
        left,
        top,
        width: length(width, size.0 - left),
        height: length(height, size.1 - top),
    }
}

/// Where the other decoder takes the file, too, it has the same number of pixels.
fn agrees_with_zune(file: &[u8], (width, height): (usize, usize)) {
    let options = DecoderOptions::default()
        .set_max_width(decode::MAX_SIDE)
        .set_max_height(decode::MAX_SIDE)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    if let Ok(pixels) = decoder.decode() {
        assert_eq!(decoder.dimensions(), Some((width, height)));
        assert_eq!(pixels.len(), width * height * 3);
    }
}
