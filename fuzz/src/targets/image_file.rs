//! PNG and WebP files, and what `inspect` reads of an image's header.

use eqco_data::{ImageHeader, decode};

use crate::reading;

/// The input is a file.
pub fn check(data: &[u8]) {
    let size = decode::size(data, "input");
    match decode::decode(data, "input") {
        Ok(image) => {
            let size = size.expect("what has pixels has a size");
            assert_eq!(size, (image.width(), image.height()));
        }
        Err(error) => reading::told(&error),
    }
    if let Err(error) = ImageHeader::of(data, "input") {
        reading::told(&error);
    }
}
