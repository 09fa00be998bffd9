//! Small data sets in the formats that runs are resumed from.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{ImageFormat, Rgb, RgbImage};

/// Training images, of which a batch of 8 makes five steps an epoch.
const COUNT: u32 = 40;
const SIDE: u32 = 18;
/// Two of them are damaged, so that others stand in for them.
const DAMAGED: [u32; 2] = [29, 38];

/// `train/` and `val/` with two classes each.
pub fn folder(root: &Path) -> PathBuf {
    let path = root.join("images");
    for (split, count) in [("train", COUNT), ("val", 12)] {
        for class in ["a", "b"] {
            fs::create_dir_all(path.join(split).join(class)).unwrap();
        }
        for number in 0..count {
            let name = format!("{split}/{}/{number:03}.png", class(number));
            fs::write(path.join(name), file(number, split == "train")).unwrap();
        }
    }
    path
}

/// The same in archives of WebDataset's form.
pub fn shards(root: &Path) -> PathBuf {
    let path = root.join("shards");
    for (split, numbers) in [("train", vec![0..13, 13..40]), ("val", vec![0..6, 6..12])] {
        fs::create_dir_all(path.join(split)).unwrap();
        for (shard, numbers) in numbers.into_iter().enumerate() {
            let mut archive = Vec::new();
            for number in numbers {
                let label = u8::from(class(number) == "b") + b'0';
                add(
                    &mut archive,
                    &format!("{number:03}.png"),
                    &file(number, split == "train"),
                );
                add(&mut archive, &format!("{number:03}.cls"), &[label]);
            }
            archive.extend([0; 1024]);
            fs::write(path.join(split).join(format!("{shard:04}.tar")), archive).unwrap();
        }
    }
    path
}

fn class(number: u32) -> &'static str {
    if number.is_multiple_of(2) { "a" } else { "b" }
}

fn file(number: u32, is_train: bool) -> Vec<u8> {
    let pixel = |x: u32, y: u32| {
        let wave = (number * 37 + x * (3 + number % 5) + y * (7 + number % 3)) % 256;
        Rgb([wave as u8, (255 - wave) as u8, (wave * x % 251) as u8])
    };
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_fn(SIDE, SIDE, pixel)
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    let mut bytes = bytes.into_inner();
    if is_train && DAMAGED.contains(&number) {
        bytes.truncate(bytes.len() / 2);
    }
    bytes
}

/// Appends a member in the form of POSIX's ustar.
fn add(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend(header);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
}
