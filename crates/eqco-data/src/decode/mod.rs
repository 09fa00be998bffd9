//! JPEG, PNG and WebP bytes to RGB.
//!
//! The format is told from the content, never from the file name. EXIF orientation is ignored, as
//! torchvision's `ImageFolder` ignores it.

mod jpeg;
mod png;
mod webp;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::augment::Region;
use crate::{DataError, Image};

/// The largest image file that is read.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The longest side that is decoded, in pixels; checked before any pixel memory is allocated.
pub const MAX_SIDE: usize = 16_384;

/// The largest number of pixels that is decoded (96 MB of RGB), checked likewise.
pub const MAX_PIXELS: usize = 1 << 25;

/// Decodes a JPEG, PNG or WebP file that is in memory; `name` (a path or id) is for the error message.
///
/// Grey images are repeated over the three channels, transparency is dropped, 16-bit PNGs are
/// rounded to 8 bits, CMYK JPEGs are converted.
///
/// # Errors
/// [`DataError::Decode`] if the bytes are of no such format, damaged, truncated, or larger than
/// [`MAX_SIDE`] or [`MAX_PIXELS`]. A JPEG file counts as truncated if it lacks its end marker or,
/// unless it is progressive, if pixels are missing before that marker.
pub fn decode(bytes: &[u8], name: &str) -> Result<Image, DataError> {
    let decoded = match kind(bytes) {
        Ok(Kind::Jpeg) => jpeg::decode(bytes),
        Ok(Kind::Png) => png::decode(bytes),
        Ok(Kind::WebP) => webp::decode(bytes),
        Err(reason) => Err(reason),
    };
    let (width, height, pixels) = decoded.map_err(|reason| error(name, reason))?;
    Image::new(width, height, pixels)
}

/// Width and height of the image in a file, from its header alone.
///
/// # Errors
/// [`DataError::Decode`] if there is no such header, or if it tells of more pixels than [`decode`] takes.
pub fn size(bytes: &[u8], name: &str) -> Result<(usize, usize), DataError> {
    let size = match kind(bytes) {
        Ok(Kind::Jpeg) => jpeg::size(bytes),
        Ok(Kind::Png) => png::size(bytes),
        Ok(Kind::WebP) => webp::size(bytes),
        Err(reason) => Err(reason),
    };
    size.map_err(|reason| error(name, reason))
}

/// Decodes the part `needed` of an image, whose pixels are those that [`decode`] gives; `memory` is used for them.
///
/// Of a baseline JPEG only this part is computed, and nothing is read below it: damage there may pass, as long as the file's
/// markers are complete. All other files are decoded as a whole.
///
/// # Errors
/// Those of [`decode`], and [`DataError::Decode`] if `needed` does not lie inside the image.
pub fn decode_part(
    bytes: &[u8],
    name: &str,
    needed: Region,
    memory: Vec<u8>,
) -> Result<Image, DataError> {
    let (width, height) = size(bytes, name)?;
    let inside = |start: usize, length: usize, whole| {
        length > 0 && start.checked_add(length).is_some_and(|end| end <= whole)
    };
    if !inside(needed.left, needed.width, width) || !inside(needed.top, needed.height, height) {
        let reason = format!("{needed:?} does not lie inside {width} x {height} pixels");
        return Err(error(name, reason));
    }
    if matches!(kind(bytes), Ok(Kind::Jpeg))
        && let Some(decoded) = jpeg::decode_part(bytes, Some(needed), memory)
    {
        let (width, height, pixels) = decoded.map_err(|reason| error(name, reason))?;
        return Image::new(width, height, pixels);
    }
    Ok(decode(bytes, name)?.cut(needed))
}

/// A format, told from a file's first bytes.
enum Kind {
    Jpeg,
    Png,
    WebP,
}

fn kind(bytes: &[u8]) -> Result<Kind, String> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Ok(Kind::Png)
    } else if bytes.starts_with(&[0xff, 0xd8]) {
        Ok(Kind::Jpeg)
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Ok(Kind::WebP)
    } else if bytes.is_empty() {
        Err("the file is empty".to_owned())
    } else {
        Err(format!(
            "neither PNG nor JPEG: it begins with {:02x?}, and is not WebP",
            &bytes[..bytes.len().min(8)]
        ))
    }
}

fn error(name: &str, reason: String) -> DataError {
    DataError::Decode {
        image: name.to_owned(),
        reason,
    }
}

/// Reads and decodes one JPEG, PNG or WebP file.
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
        return Err(DataError::layout(path, "a JPEG, PNG or WebP file", found));
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
