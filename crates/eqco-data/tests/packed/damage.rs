//! Files that are not what they were.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use eqco_data::dataset::packed::format::{ENTRY_BYTES, HEADER_BYTES, MAGIC, VERSION};
use eqco_data::{DataError, Split};
use tempfile::tempdir;

use super::{contents, failure, opened, packed_folder};

/// Bytes of the index of [`packed_folder`]'s seven images.
const INDEX: usize = 7 * ENTRY_BYTES;

/// Where the names begin.
fn names_offset(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[24..32].try_into().unwrap()) as usize
}

/// Writes the checksums of a file anew, as somebody would who wants to deceive.
fn with_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len();
    let indices = [
        end - INDEX..end - 2 * ENTRY_BYTES,
        end - 2 * ENTRY_BYTES..end,
    ];
    let names = names_offset(&bytes)..end - INDEX;
    for (place, part) in [
        (12, names),
        (56, indices[0].clone()),
        (60, indices[1].clone()),
        (64, 0..64),
    ] {
        let sum = crc32c::crc32c(&bytes[part]);
        bytes[place..place + 4].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

#[test]
fn every_flipped_byte_outside_of_the_images_is_found() {
    let root = tempdir().unwrap();
    let path = packed_folder(root.path());
    let whole = fs::read(&path).unwrap();
    let said = |split| {
        let dataset = eqco_data::open(path.to_str().unwrap(), split)?;
        Ok::<_, DataError>((
            dataset.name().to_owned(),
            dataset.class_names().to_vec(),
            contents(&*dataset)?,
        ))
    };
    let before = [Split::Train, Split::Test].map(|split| said(split).unwrap());
    let places: Vec<usize> = (0..HEADER_BYTES)
        .chain(names_offset(&whole)..whole.len())
        .collect();
    assert_eq!(places.len(), 68 + (4 + 3 + 4 + 4 + 3 + 4 + 3) + INDEX);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for at in places {
        for flip in [1 << (at % 8), 0xff] {
            write_byte(&file, at, whole[at] ^ flip);
            let after = [Split::Train, Split::Test].map(said);
            assert!(after.iter().any(Result::is_err), "byte {at} ^ {flip:02x}");
            for (before, after) in before.iter().zip(after) {
                match after {
                    Ok(after) => assert_eq!(&after, before, "byte {at} ^ {flip:02x}"),
                    Err(error) => assert!(error.hint().is_some(), "{error}"),
                }
            }
        }
        write_byte(&file, at, whole[at]);
    }
    assert_eq!(fs::read(&path).unwrap(), whole);
}

fn write_byte(mut file: &fs::File, at: usize, byte: u8) {
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[byte]).unwrap();
}

#[test]
fn a_flipped_bit_of_an_image_makes_that_image_unreadable() {
    let root = tempdir().unwrap();
    let path = packed_folder(root.path());
    let whole = fs::read(&path).unwrap();
    let before = contents(&*opened(&path, Split::Train)).unwrap();
    let mut begin = HEADER_BYTES;
    for (index, (_, body)) in before.iter().enumerate() {
        for at in [
            begin,
            begin + body.len() / 2,
            begin + body.len().saturating_sub(1),
        ] {
            if body.is_empty() {
                continue;
            }
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            let train = opened(&path, Split::Train);
            for (other, (_, body)) in before.iter().enumerate() {
                let read = train.encoded(other);
                if other != index {
                    assert_eq!(&*read.unwrap().unwrap(), &body[..]);
                    continue;
                }
                for error in [read.err(), train.image(other).err()] {
                    let error = error.expect("a damaged image is no image");
                    assert!(matches!(error, DataError::Decode { .. }), "{error:?}");
                    let message = error.to_string();
                    assert!(
                        message.contains(&format!("training image {index}: its checksum differs")),
                        "{message}"
                    );
                }
            }
        }
        begin += body.len();
    }
}

#[test]
fn a_cut_at_any_sixteenth_is_found_and_so_is_more() {
    let root = tempdir().unwrap();
    let path = packed_folder(root.path());
    let whole = fs::read(&path).unwrap();
    let cuts = (0..16).map(|part| whole.len() * part / 16);
    let cuts = cuts.chain([
        7,
        8,
        11,
        12,
        HEADER_BYTES - 1,
        HEADER_BYTES,
        whole.len() - 1,
    ]);
    for cut in cuts {
        fs::write(&path, &whole[..cut]).unwrap();
        for split in [Split::Train, Split::Test] {
            let failure = failure(&path, split);
            assert!(failure.contains("set.eqco: expected"), "{failure}");
            assert!(
                failure.contains("copy it again, or pack"),
                "{cut}: {failure}"
            );
        }
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    let expected = format!(
        "expected {} bytes, as the header says, found {} bytes",
        whole.len(),
        whole.len() + 1
    );
    let failure = failure(&path, Split::Train);
    assert!(failure.contains(&expected), "{failure}");
}

#[test]
fn other_files_and_newer_versions_say_so() {
    let root = tempdir().unwrap();
    let path = packed_folder(root.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = VERSION as u8 + 1;
    fs::write(&path, with_checksums(bytes)).unwrap();
    let newer = failure(&path, Split::Train);
    assert!(
        newer.contains("expected version 1 of the format, found version 2"),
        "{newer}"
    );
    assert!(
        newer.contains("use the eqco-train that wrote it"),
        "{newer}"
    );

    fs::write(&path, b"\x89PNG\r\n\x1a\n and so on").unwrap();
    let other = failure(&path, Split::Train);
    assert!(
        other.contains("found [89, 50, 4e, 47, 0d, 0a, 1a, 0a]"),
        "{other}"
    );
    assert!(
        other.contains("give a file that `eqco-train pack` has written"),
        "{other}"
    );

    // Without the name's promise it is a file like any other.
    let picture = root.path().join("picture.png");
    fs::rename(&path, &picture).unwrap();
    let file = failure(&picture, Split::Train);
    assert!(file.contains("expected a folder, found a file"), "{file}");
    assert_eq!(MAGIC[0], 0x89);
}

#[test]
fn an_index_that_points_outside_is_refused_whatever_its_checksum() {
    let root = tempdir().unwrap();
    let path = packed_folder(root.path());
    let whole = fs::read(&path).unwrap();
    let entry = whole.len() - INDEX + ENTRY_BYTES;
    let names = names_offset(&whole) as u64;
    let cases: [(usize, &[u8], &str); 6] = [
        (0, &0u64.to_le_bytes(), "at 0 for image 1"),
        (0, &67u64.to_le_bytes(), "at 67 for image 1"),
        (0, &names.to_le_bytes(), "for image 1"),
        (
            0,
            &u64::MAX.to_le_bytes(),
            "at 18446744073709551615 for image 1",
        ),
        (8, &u32::MAX.to_le_bytes(), "found 4294967295 bytes at "),
        (
            12,
            &2u32.to_le_bytes(),
            "expected the label of one of 2 classes, found 2 for image 1",
        ),
    ];
    for (place, value, expected) in cases {
        let mut bytes = whole.clone();
        bytes[entry + place..][..value.len()].copy_from_slice(value);
        fs::write(&path, with_checksums(bytes)).unwrap();
        let message = failure(&path, Split::Train);
        assert!(message.contains(expected), "{message}");
        assert_eq!(
            opened(&path, Split::Test).len(),
            2,
            "the other part is whole"
        );
    }
    let mut bytes = whole.clone();
    bytes[entry + 12..entry + 16].fill(0xff);
    fs::write(&path, with_checksums(bytes)).unwrap();
    let message = failure(&path, Split::Train);
    assert!(message.contains("found none for image 1"), "{message}");
}

#[test]
fn a_header_whose_parts_do_not_fit_is_refused_whatever_its_checksum() {
    let root = tempdir().unwrap();
    let path = packed_folder(root.path());
    let whole = fs::read(&path).unwrap();
    for (place, value) in [
        (24, 67),
        (24, u64::MAX),
        (32, u64::MAX),
        (40, u64::MAX),
        (40, 4),
        (48, 1 << 60),
    ] {
        let mut bytes = whole.clone();
        bytes[place..place + 8].copy_from_slice(&u64::to_le_bytes(value));
        let sum = crc32c::crc32c(&bytes[..64]);
        bytes[64..68].copy_from_slice(&sum.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let message = failure(&path, Split::Train);
        assert!(
            message.contains("expected parts that make up the file's"),
            "{place} {value}: {message}"
        );
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_open_is_an_error() {
    let root = tempdir().unwrap();
    let path = packed_folder(root.path());
    let train = opened(&path, Split::Train);
    let length = fs::metadata(&path).unwrap().len();
    assert!(train.image(0).is_ok());
    shorten(&path, length - 1);
    let error = train.image(0).unwrap_err();
    let expected = format!(
        "expected {length} bytes, as when it was opened, found {} bytes",
        length - 1
    );
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(train.encoded(0).is_err());
}

fn shorten(path: &Path, length: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}
