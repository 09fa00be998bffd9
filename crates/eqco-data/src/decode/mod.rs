//! PNG and JPEG bytes to RGB.
//!
//! The format is told from the content, never from the file name. EXIF orientation is ignored, as
//! torchvision's `ImageFolder` ignores it.

mod jpeg;
mod jpeg_structure;
mod png;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{DataError, Image};

/// The largest image file that is read.
const MAX_FILE_BYTES: u64 = 256 << 20;

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
/// [`MAX_SIDE`] or [`MAX_PIXELS`]. A JPEG file counts as truncated if it lacks its end marker or,
/// unless it is progressive, if pixels are missing before that marker.
pub fn decode(bytes: &[u8], name: &str) -> Result<Image, DataError> {
    let decoded = if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        png::decode(bytes)
    } else if bytes.starts_with(&[0xff, 0xd8]) {
        jpeg::decode(bytes)
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

/// Reads and decodes one PNG or JPEG file.
///
/// # Errors
/// [`DataError::Layout`] if there is something else than a file at `path`, [`DataError::Io`], and those of [`decode`].
pub fn read_file(path: &Path) -> Result<Image, DataError> {
    decode(&read_bytes(path)?, &path.to_string_lossy())
}

/// Reads one file of an image, of which no more than [`MAX_FILE_BYTES`] are taken.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    let io_error = |error| DataError::io(path, error);
    // Looked at before it is opened: opening a pipe would wait for its other end.
    if !path.metadata().map_err(io_error)?.is_file() {
        let found = "a folder or a device";
        return Err(DataError::layout(path, "a JPEG or PNG file", found));
    }
    let file = File::open(path).map_err(io_error)?;
    let size = file.metadata().map_err(io_error)?.len();
    let mut bytes = Vec::with_capacity(size.min(MAX_FILE_BYTES) as usize);
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(io_error)?;
    Ok(bytes)
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
