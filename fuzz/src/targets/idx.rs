//! MNIST's files, plain and compressed.

use eqco_data::{Format, Split};

use crate::targets::validation_labels::gzip;
use crate::{files, input, reading};

/// Whether the images are compressed first.
pub const GZIP: u8 = 1;

/// The first byte holds [`GZIP`], then come labels and images.
pub fn check(data: &[u8]) {
    let (choice, data) = input::choice(data);
    let (labels, images) = input::two(data);
    let images = match choice & GZIP {
        0 => images.to_vec(),
        _ => gzip(images),
    };
    let names = ["train-labels-idx1-ubyte", "train-images-idx3-ubyte"];
    files::with(&[(names[0], labels), (names[1], &images)], |root| {
        reading::open_and_read(root, Split::Train, Format::Idx);
    });
}
