//! What image files cost that claim to be large. One test, alone in its process: the allocator counts.

mod counting_allocator;

use std::fs;

use counting_allocator::peak_bytes;
use eqco_data::augment::Region;
use eqco_data::decode::{MAX_SIDE, decode, decode_part};

fn golden(file: &str) -> Vec<u8> {
    fs::read(format!("tests/golden/files/{file}")).unwrap()
}

/// The file with another size in its frame header: the largest that is decoded.
fn enlarged_jpeg(file: &str, marker: u8) -> Vec<u8> {
    let mut bytes = golden(file);
    let frame = bytes.windows(2).position(|pair| pair == [0xff, marker]);
    let size = frame.unwrap() + 5;
    bytes[size..size + 2].copy_from_slice(&(2048u16).to_be_bytes());
    bytes[size + 2..size + 4].copy_from_slice(&(MAX_SIDE as u16).to_be_bytes());
    bytes
}

fn enlarged_png(file: &str) -> Vec<u8> {
    let mut bytes = golden(file);
    // The header chunk: length, "IHDR", width, height, 5 bytes, checksum.
    bytes[16..20].copy_from_slice(&(MAX_SIDE as u32).to_be_bytes());
    bytes[20..24].copy_from_slice(&2048u32.to_be_bytes());
    let mut checksum = flate2::Crc::new();
    checksum.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    bytes
}

#[test]
fn a_claim_of_many_pixels_costs_nothing_in_a_small_file() {
    // Tables of codes, and what a decoder needs in any case.
    let most = 1 << 20;
    let part = Region {
        left: 0,
        top: 1024,
        width: MAX_SIDE,
        height: 1024,
    };
    for bytes in [
        enlarged_jpeg("444.jpg", 0xc0),
        enlarged_jpeg("restarts.jpg", 0xc0),
        enlarged_jpeg("grey.jpg", 0xc0),
        enlarged_jpeg("progressive.jpg", 0xc2),
        enlarged_jpeg("cmyk.jpg", 0xc0),
        enlarged_png("rgb.png"),
        enlarged_png("palette.png"),
        enlarged_png("one_bit.png"),
    ] {
        let peak = peak_bytes(|| {
            let error = decode(&bytes, "large").unwrap_err().to_string();
            assert!(error.contains("truncated"), "{error}");
            assert!(decode_part(&bytes, "large", part, Vec::new()).is_err());
        });
        assert!(peak < most, "{peak} bytes for a file of {}", bytes.len());
    }
}
