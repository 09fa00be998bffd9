//! The headers of tar archives: shards, and ImageNet's archive of archives.

use eqco_data::{Format, Split};

use crate::{files, input, reading};

const BLOCK: usize = 512;

/// Whether the checksums of headers are set right.
pub const REPAIR: u8 = 1;

/// Whether it is an archive of archives.
pub const NESTED: u8 = 2;

/// The first byte holds [`REPAIR`] and [`NESTED`], the rest is an archive.
pub fn check(data: &[u8]) {
    let (choice, archive) = input::choice(data);
    let mut archive = archive.to_vec();
    if choice & REPAIR != 0 {
        repair(&mut archive);
    }
    let (name, format) = match choice & NESTED {
        0 => ("train-0.tar", Format::Shards),
        _ => ("ILSVRC2012_img_train.tar", Format::ImagenetTar),
    };
    files::with(&[(name, &archive)], |root| {
        let path = root.join(name);
        reading::open_and_read(&path, Split::Train, format);
        // Where there was an index to keep, it gives the same answers.
        reading::open_and_read(&path, Split::Train, format);
    });
}

/// Sets the checksum of each block right that looks like a header.
fn repair(archive: &mut [u8]) {
    for block in archive.as_chunks_mut::<BLOCK>().0 {
        if !block[257..].starts_with(b"ustar") {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
