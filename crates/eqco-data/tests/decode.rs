//! Damaged, truncated and oversized image files.

use std::io::Cursor;

use eqco_data::DataError;
use eqco_data::decode::{MAX_SIDE, decode};
use image::{ImageBuffer, ImageFormat, Luma, Rgb};

const END_MARKER: [u8; 2] = [0xff, 0xd9];

fn golden(file: &str) -> Vec<u8> {
    std::fs::read(format!("tests/golden/files/{file}")).unwrap()
}

fn reason(bytes: &[u8]) -> String {
    match decode(bytes, "some/file.jpg") {
        Err(DataError::Decode { image, reason }) => {
            assert_eq!(image, "some/file.jpg");
            reason
        }
        other => panic!("expected a decoding error, got {other:?}"),
    }
}

#[test]
fn every_truncation_is_an_error() {
    let kinds = [
        "444.jpg",
        "420.jpg",
        "grey.jpg",
        "cmyk.jpg",
        "progressive.jpg",
        "restarts.jpg",
        "411.jpg",
        "440.jpg",
        "optimized.jpg",
        "ycck.jpg",
        "lossy.webp",
        "lossless.webp",
    ];
    for file in kinds.into_iter().chain(["rgb.png", "palette.png"]) {
        let bytes = golden(file);
        for length in 0..bytes.len() - usize::from(file.ends_with("png")) * 16 {
            assert!(
                decode(&bytes[..length], file).is_err(),
                "{file} cut to {length} bytes"
            );
        }
    }
}

#[test]
fn a_truncated_file_with_an_end_marker_is_an_error() {
    for file in ["444.jpg", "420.jpg", "grey.jpg", "cmyk.jpg", "restarts.jpg"] {
        let bytes = golden(file);
        // The decoder reads some bytes ahead: less than that is not noticed.
        for length in 0..bytes.len() - 32 {
            let cut = [&bytes[..length], &END_MARKER].concat();
            assert!(decode(&cut, file).is_err(), "{file} cut to {length} bytes");
        }
    }
}

#[test]
fn what_follows_the_end_marker_does_not_matter() {
    for file in ["420.jpg", "progressive.jpg"] {
        let bytes = golden(file);
        let longer = [&bytes[..], &[0, 1, 2], &bytes[..]].concat();
        assert_eq!(
            decode(&longer, file).unwrap(),
            decode(&bytes, file).unwrap()
        );
    }
}

#[test]
fn other_content_is_named() {
    assert_eq!(reason(b""), "the file is empty");
    assert!(reason(b"<html>").starts_with("neither PNG nor JPEG: it begins with [3c, 68"));
    assert!(reason(&[0xff, 0xd8]).contains("truncated"));
}

#[test]
fn damaged_bytes_never_panic() {
    for file in [
        "420.jpg",
        "progressive.jpg",
        "restarts.jpg",
        "cmyk.jpg",
        "palette.png",
        "444.jpg",
        "411.jpg",
        "optimized.jpg",
        "lossy.webp",
        "lossless.webp",
    ] {
        let bytes = golden(file);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            if let Ok(image) = decode(&damaged, file) {
                assert_eq!(image.pixels().len(), image.width() * image.height() * 3);
            }
        }
    }
}

#[test]
fn sixteen_bit_images_are_rounded() {
    let values = [0u16, 128, 129, 257, 32_768, 65_535];
    let grey = ImageBuffer::<Luma<u16>, _>::from_raw(6, 1, values.to_vec()).unwrap();
    let mut file = Cursor::new(Vec::new());
    grey.write_to(&mut file, ImageFormat::Png).unwrap();
    let decoded = decode(file.get_ref(), "16 bit").unwrap();
    let expected = values.map(|value| (f64::from(value) / 257.0).round() as u8);
    assert_eq!(
        decoded.pixels(),
        expected.map(|value| [value; 3]).as_flattened()
    );
}

#[test]
fn oversized_images_are_refused_by_their_header() {
    let picture = ImageBuffer::<Rgb<u8>, _>::new(1, 1);
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    let mut png = file.into_inner();
    // The header chunk: length, "IHDR", width, height, 5 bytes, checksum.
    png[16..20].copy_from_slice(&(MAX_SIDE as u32 + 1).to_be_bytes());
    let mut checksum = flate2::Crc::new();
    checksum.update(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    assert!(
        reason(&png).contains("16385 x 1 pixels"),
        "{}",
        reason(&png)
    );

    // In a JPEG file, height and width follow the frame marker, its length and the precision.
    let mut jpeg = golden("444.jpg");
    let frame = jpeg
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x3f, 0xff, 0x3f, 0xff]);
    assert!(
        reason(&jpeg).contains("16383 x 16383 pixels"),
        "{}",
        reason(&jpeg)
    );
}
