//! Files with the labels of validation images.

use std::io::Write;

use eqco_data::{Format, Split};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::{files, input, reading, seeds};

/// The names of such files, by the first byte.
pub const NAMES: [&str; 4] = [
    "val_labels.txt",
    "LOC_val_solution.csv",
    "meta.mat",
    "ILSVRC2012_devkit_t12.tar.gz",
];

/// Whether the content of a `meta.mat`, or an archive, is compressed first.
pub const COMPRESS: u8 = 4;

/// The file with the numbers of the classes, beside a `meta.mat`.
pub const TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";

/// The number in [`NAMES`] and [`COMPRESS`], then the file.
pub fn check(data: &[u8]) {
    let (choice, data) = input::choice(data);
    let name = NAMES[usize::from(choice & 3)];
    let file = match (name, choice & COMPRESS != 0) {
        ("meta.mat", true) => matlab(data),
        ("ILSVRC2012_devkit_t12.tar.gz", true) => gzip(data),
        _ => data.to_vec(),
    };
    let val = seeds::validation_archive();
    let mut files = vec![("ILSVRC2012_img_val.tar", &val[..]), (name, &file)];
    if name == "meta.mat" {
        files.push((TRUTH, b"1\n4\n2\n4\n"));
    }
    files::with(&files, |root| {
        reading::open_and_read(root, Split::Test, Format::ImagenetTar);
    });
}

/// A file of MATLAB's version 5 with one compressed element.
fn matlab(element: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 128];
    file[124..].copy_from_slice(&[0, 1, b'I', b'M']);
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(element)
        .expect("memory can be written to");
    let body = encoder.finish().expect("memory can be written to");
    file.extend(15u32.to_le_bytes());
    file.extend((body.len() as u32).to_le_bytes());
    file.extend(body);
    file
}

/// The bytes, compressed as `gzip` does.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory can be written to");
    encoder.finish().expect("memory can be written to")
}
