//! The same files give the same values as `candle_datasets` reads.
//!
//! Its tree, with 440 crates and licences that are not on our list, is no dependency: the digests were computed by a program that
//! writes the files below, calls `candle_datasets::vision::{mnist, cifar}::load_dir` of version 0.11.1 on them, and hashes of each
//! image its values (`f32`, little-endian, in candle's order) and its label. As `cifar::load_dir` wants 10,000 images a file, that
//! program writes the 20 records of a file over and over and hashes the first 20.

use std::fs;
use std::path::Path;

use eqco_data::{Dataset, Split, open};
use sha2::{Digest, Sha256};

const RECORDS: usize = 20;

fn pixel(n: usize) -> u8 {
    (((n * 31 + 7) * (n + 3)) >> 3) as u8
}

/// The digest of all images as candle holds them: values from 0 to 1, one plane a channel.
fn digest(dataset: &dyn Dataset, channels: usize) -> String {
    let mut hash = Sha256::new();
    for index in 0..dataset.len() {
        let image = dataset.image(index).unwrap();
        for channel in 0..channels {
            for pixel in image.pixels().chunks_exact(3) {
                // candle divides by multiplying with the reciprocal, which it rounds to f32.
                hash.update((f32::from(pixel[channel]) * (1.0 / 255.0) as f32).to_le_bytes());
            }
        }
        hash.update([dataset.label(index).unwrap() as u8]);
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digests(folder: &Path, channels: usize) -> [String; 2] {
    let of = |split| digest(&*open(folder.to_str().unwrap(), split).unwrap(), channels);
    [of(Split::Train), of(Split::Test)]
}

#[test]
fn idx_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: String, magic: u32, sizes: &[u32], payload: Vec<u8>| {
        let numbers = [magic].into_iter().chain(sizes.iter().copied());
        let header = numbers.flat_map(u32::to_be_bytes);
        fs::write(
            folder.path().join(name),
            header.chain(payload).collect::<Vec<_>>(),
        )
        .unwrap();
    };
    for (prefix, count, start) in [("train", 7, 0), ("t10k", 5, 1000)] {
        let pixels = (0..count * 28 * 28).map(|n| pixel(start + n)).collect();
        let sizes = [count as u32, 28, 28];
        write(format!("{prefix}-images-idx3-ubyte"), 2051, &sizes, pixels);
        let labels = (0..count).map(|n| (n * 3 % 10) as u8).collect();
        write(
            format!("{prefix}-labels-idx1-ubyte"),
            2049,
            &sizes[..1],
            labels,
        );
    }
    let expected = [
        "299e78ae12b49c333c5ec3354321aa751c6a13d3c74a2e237432987196bc4cdb",
        "b399e0efdd0df07bc3d980c97b8cbe57fc432f18bf420295f77539e0b643381a",
    ];
    assert_eq!(digests(folder.path(), 1), expected);
}

#[test]
fn cifar_batches() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
    ];
    for (number, file) in files.iter().enumerate() {
        let record = |n: usize| {
            let start = number * 50_000 + n * 3073;
            let pixels = (1..3073).map(move |j| pixel(start + j));
            [((number + n) % 10) as u8].into_iter().chain(pixels)
        };
        let path = folder.path().join(format!("{file}.bin"));
        fs::write(path, (0..RECORDS).flat_map(record).collect::<Vec<_>>()).unwrap();
    }
    let names = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
    fs::write(folder.path().join("batches.meta.txt"), names).unwrap();
    let expected = [
        "7fa3f52551b335a434150f25e2ba47867fadf715d9210ed988ae7e8aafbc3a03",
        "467252f785615660d32a1d266371837122eb71079d2a7f6a6903ca1e93155ac1",
    ];
    assert_eq!(digests(folder.path(), 3), expected);
}
