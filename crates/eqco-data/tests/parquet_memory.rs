//! What damaged Parquet files and large sets cost. One test, alone in its process: the allocator counts what every thread
//! allocates.

mod counting_allocator;

use std::fs;
use std::path::{Path, PathBuf};

use counting_allocator::{allocated, peak_bytes};
use eqco_data::dataset::Parquet;
use eqco_data::{Dataset, Split};

fn golden() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet");
    let files = folder.read_dir().unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn file(name: &str) -> PathBuf {
    let ending = format!("{name}.parquet");
    golden()
        .into_iter()
        .find(|path| path.ends_with(&ending))
        .unwrap()
}

/// A copy of a file whose first page, a dictionary, says that it has `claim` bytes without compression. Nothing else moves: what the larger
/// number takes is taken off the page's content.
fn claiming(claim: i32, path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    // Behind the magic: field 1 and the page's kind, field 2 and this size, field 3 and the size in the file, all of two bytes.
    assert_eq!([bytes[4], bytes[6], bytes[9]], [0x15; 3]);
    assert!(bytes[7] >= 0x80 && bytes[8] < 0x80 && bytes[10] >= 0x80 && bytes[11] < 0x80);
    let varint = |mut value: u32, length: usize| {
        let mut bytes = vec![0x80; length];
        for byte in &mut bytes {
            *byte |= value as u8 & 0x7f;
            value >>= 7;
        }
        bytes[length - 1] &= 0x7f;
        bytes
    };
    let stored = u32::from(bytes[10] & 0x7f) | u32::from(bytes[11]) << 7;
    // A dictionary's header ends with "not sorted" and the ends of two structs.
    let ending = bytes.windows(3).position(|three| three == [0x12, 0, 0]);
    let header_end = ending.unwrap() + 3;
    let size = varint((claim as u32).wrapping_mul(2), 5);
    let stored = varint(stored - 2 * 3, 2);
    let about = &bytes[12..header_end];
    [
        &bytes[..7],
        &size,
        &[0x15],
        &stored,
        about,
        &bytes[header_end + 3..],
    ]
    .concat()
}

/// Opens a file and asks for all its images. What comes is not looked at: nothing may panic or take much memory.
fn read_all(path: &Path) -> (usize, usize) {
    let Ok(dataset) = Parquet::open(path, "damaged", Split::Train) else {
        return (0, 0);
    };
    let read = (0..dataset.len())
        .step_by(2)
        .filter(|&at| dataset.encoded(at).is_ok());
    (1, read.count())
}

/// A file that is a footer alone: a long name, and very many columns below it.
fn many_columns_below_a_long_name() -> Vec<u8> {
    let varint = |value: u32| {
        let bytes = [value & 0x7f | 0x80, value >> 7 & 0x7f | 0x80, value >> 14];
        bytes.map(|byte| byte as u8)
    };
    let (name, columns) = (vec![b'x'; 200_000], 5_000);
    // Field 2, a list of structs: the root with one child, that with the others, and these, byte strings called `a`.
    let schema = [&[0x29, 0xfc][..], &varint(columns + 2)];
    let root = [&[0x48, 1, b'r', 0x15, 2, 0][..]];
    let length = varint(name.len() as u32);
    let children = varint(columns * 2);
    let parent = [&[0x48][..], &length, &name, &[0x15], &children, &[0]];
    let leaves = [0x15, 12, 0x38, 1, b'a', 0].repeat(columns as usize);
    let footer = [&schema[..], &root, &parent, &[&leaves, &[0]]]
        .concat()
        .concat();
    let length = (footer.len() as u32).to_le_bytes();
    [b"PAR1", &footer[..], &length, b"PAR1"].concat()
}

#[test]
fn damage_costs_no_memory_and_pages_no_more_than_their_budget() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("train.parquet");

    // zstd's tables and window make up most of it. Each file has 10 KB at most.
    let bound = 4 << 20;
    let (mut worst, mut opened, mut read) = (0, 0, 0);
    for source in golden() {
        let whole = fs::read(&source).unwrap();
        let mut state = 1_u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for case in 0..60 {
            let mut bytes = whole.clone();
            // Headers and footers are where damage hurts; large numbers hurt most.
            let at = match case % 2 {
                0 => random(bytes.len()),
                _ => bytes.len() - 1 - random(bytes.len().min(1200)),
            };
            let length = 1 + random(5);
            for byte in bytes.iter_mut().skip(at).take(length) {
                *byte = if case % 3 == 0 {
                    0xff
                } else {
                    random(256) as u8
                };
            }
            if case % 5 == 0 {
                bytes.drain(..random(40));
            }
            fs::write(&path, &bytes).unwrap();
            let mut outcome = (0, 0);
            worst = worst.max(peak_bytes(|| outcome = read_all(&path)));
            opened += outcome.0;
            read += outcome.1;
        }
    }
    assert!(worst < bound, "{worst} bytes for a file of 10 KB");
    // The damage must not be such that all files are refused at once.
    assert!(
        opened > 500 && read > 10_000,
        "{opened} opened, {read} images read"
    );

    fs::write(&path, many_columns_below_a_long_name()).unwrap();
    let peak = peak_bytes(|| {
        let error = Parquet::open(&path, "many", Split::Train).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("no column that can hold images, but xxx"),
            "{error}"
        );
        assert!(error.len() < 4_000, "{error}");
    });
    assert!(
        peak < bound,
        "{peak} bytes for 5,000 columns of one long name"
    );

    // Two gigabytes are more than the memory for pages; 200 MiB are not, but no page of a few KB has them.
    for (claim, name) in [i32::MAX, 200 << 20].into_iter().flat_map(|claim| {
        let names = ["snappy-dictionary", "gzip-dictionary-v2", "nulls-zstd-v2"];
        names.map(|name| (claim, name))
    }) {
        fs::write(&path, claiming(claim, &file(name))).unwrap();
        let peak = peak_bytes(|| {
            let dataset = Parquet::open(&path, name, Split::Train).unwrap();
            assert!(dataset.encoded(0).is_err(), "{name}");
        });
        assert!(peak < bound, "{name}: {peak} bytes for a claim of {claim}");
    }

    // One of these has 5 KB of decoded pages; 2 KB are there for them.
    for name in ["snappy-dictionary-full", "zstd-v1"] {
        let all = Parquet::open(&file(name), name, Split::Train).unwrap();
        let dataset = all.with_cache_bytes(2 << 10);
        let held = || {
            let before = allocated();
            (0..dataset.len()).for_each(|index| drop(dataset.encoded(index).unwrap()));
            allocated().saturating_sub(before)
        };
        // Places of pages and the cache's own tables come with the first pass, some hundred bytes a page.
        let first = held();
        assert!(first < 12 << 10, "{name}: {first} bytes held");
        assert!(held() < 2 << 10, "{name}");
    }
}
