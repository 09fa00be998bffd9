//! Parquet files of the writers that Hugging Face's sets come from (`python/golden_parquet.py`), and files that nobody should have
//! written.

use std::fs;
use std::path::{Path, PathBuf};

use eqco_data::dataset::Parquet;
use eqco_data::{DataError, Dataset, Split, open};
use tempfile::{TempDir, tempdir};

const ROWS: usize = 60;

fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet");
    folder.join(format!("{name}.parquet"))
}

fn opened(name: &str) -> Parquet {
    Parquet::open(&golden(name), name, Split::Train).unwrap()
}

/// The bytes of row `i`, as the script computes them.
fn image(i: usize) -> Vec<u8> {
    let byte = |j: usize| (((i * 31 + 7) * (j + 3) * (j + 3)) >> 2 & 255) as u8;
    (0..20 + i * 37 % 90).map(byte).collect()
}

fn bytes(dataset: &dyn Dataset, index: usize) -> Result<Vec<u8>, String> {
    let bytes = dataset.encoded(index).map_err(|error| error.to_string())?;
    Ok(bytes.expect("files").into_owned())
}

/// A folder with copies of golden files under other names.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let root = tempdir().unwrap();
    for (name, source) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(golden(source), path).unwrap();
    }
    root
}

fn failure(path: &Path, split: Split) -> String {
    let opened = open(path.to_str().unwrap(), split);
    opened.err().expect("an error").to_string()
}

#[test]
fn every_layout_gives_the_same_bytes_and_labels_in_any_order() {
    for name in [
        "snappy-dictionary",
        "plain-v1",
        "plain-v2-index",
        "plain-dictionary",
        "snappy-dictionary-full",
        "zstd-v1",
        "gzip-dictionary-v2",
        "lz4-v2",
    ] {
        // The second has memory for few pages.
        for dataset in [opened(name), opened(name).with_cache_bytes(5 << 10)] {
            assert_eq!(dataset.len(), ROWS, "{name}");
            assert_eq!(dataset.class_names(), ["ant", "bee", "cat", "dog", "eel"]);
            for step in 0..2 * ROWS {
                let index = step * 23 % ROWS;
                assert_eq!(bytes(&dataset, index), Ok(image(index)), "{name}, {index}");
                assert_eq!(dataset.label(index), Some(index as u32 % 5), "{name}");
            }
        }
    }
}

#[test]
fn threads_read_the_same() {
    for name in ["plain-v1", "zstd-v1", "snappy-dictionary-full"] {
        let dataset = opened(name).with_cache_bytes(2 << 10);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let dataset = &dataset;
                scope.spawn(move || {
                    for step in 0..200 {
                        let index = (step * 7 + thread * 13) % ROWS;
                        assert_eq!(bytes(dataset, index), Ok(image(index)), "{name}");
                    }
                });
            }
        });
    }
}

#[test]
fn what_datasets_writes_is_decoded() {
    let path = golden("datasets");
    let dataset = open(path.to_str().unwrap(), Split::Train).unwrap();
    assert_eq!((dataset.len(), dataset.label(7)), (ROWS, Some(2)));
    let picture = dataset.image(41).unwrap();
    assert_eq!((picture.width(), picture.height()), (3, 2));
    let expected = [
        [41, 0, 0],
        [41, 1, 0],
        [41, 2, 0],
        [41, 0, 1],
        [41, 1, 1],
        [41, 2, 1],
    ];
    assert_eq!(picture.pixels(), expected.as_flattened());
    assert!(dataset.describe(41).ends_with("datasets.parquet, row 41"));
}

#[test]
fn nulls_are_images_that_cannot_be_read_and_labels_that_are_not_there() {
    for name in [
        "nulls-plain",
        "nulls-snappy-dictionary",
        "nulls-zstd-v2",
        // Written by the `parquet` crate, version 60.1, with the same nulls and two row groups.
        "arrow-plain",
        "arrow-snappy-v2",
        "arrow-gzip",
        "arrow-lz4",
        "arrow-zstd-v2",
    ] {
        let dataset = opened(name);
        for index in 0..ROWS {
            match index % 10 {
                3 | 4 => {
                    let error = bytes(&dataset, index).unwrap_err();
                    let expected = format!("row {index}: there is no image in this row");
                    assert!(error.ends_with(&expected), "{name}: {error}");
                }
                _ => assert_eq!(bytes(&dataset, index), Ok(image(index)), "{name}, {index}"),
            }
            let label = (![5, 6].contains(&(index % 10))).then_some(index as u32 % 5);
            assert_eq!(dataset.label(index), label, "{name}, {index}");
        }
    }
}

#[test]
fn other_columns_and_sets_without_labels() {
    let required = opened("required");
    assert_eq!(bytes(&required, 59), Ok(image(59)));
    assert_eq!(
        (required.label(59), required.class_names().len()),
        (Some(4), 5)
    );
    assert_eq!(required.class_names()[4], "4");

    for name in ["unlabelled", "secret-labels"] {
        let dataset = opened(name);
        assert_eq!(bytes(&dataset, 17), Ok(image(17)));
        assert_eq!(
            (dataset.label(17), dataset.class_names().len()),
            (None, 0),
            "{name}"
        );
    }
    assert_eq!(opened("two-labels").label(13), Some(3));
}

#[test]
fn a_file_that_cannot_be_read_has_the_hint_of_its_kind() {
    for name in ["two-images", "no-image"] {
        let error = Parquet::open(&golden(name), name, Split::Train).err();
        let hint = error.and_then(|error| error.hint()).unwrap();
        assert!(hint.starts_with("images are a column"), "{name}: {hint}");
    }
}

#[test]
fn what_is_not_read_is_told() {
    for (name, expected) in [
        ("brotli", "pages compressed with Brotli"),
        (
            "two-images",
            "several columns that can hold images: left.bytes (binary), right.bytes (binary)",
        ),
        (
            "no-image",
            "no column that can hold images, but text (string), label (int64)",
        ),
        ("label-beyond", "found the label 59 beside 5 names"),
    ] {
        let message = failure(&golden(name), Split::Train);
        assert!(message.contains(expected), "{name}: {message}");
    }
    let little_memory = opened("plain-dictionary").with_cache_bytes(4 << 10);
    let error = bytes(&little_memory, 0).unwrap_err();
    let expected = "a page of 4110 bytes, more than the 4096 bytes of memory for decoded pages \
                    (EQCO_PARQUET_CACHE_MIB)";
    assert!(error.ends_with(expected), "{error}");
    let error = bytes(&opened("delta"), 0).unwrap_err();
    assert!(error.ends_with("row 0: bytes in delta encoding"), "{error}");
}

#[test]
fn folders_are_told_by_the_names_of_their_files() {
    let root = folder(&[
        ("data/train-00000-of-00002.parquet", "zstd-v1"),
        ("data/train-00001-of-00002.parquet", "plain-v1"),
        ("data/test-00000-of-00001.parquet", "secret-labels"),
        ("data/validation-00000-of-00001.parquet", "datasets"),
    ]);
    fs::write(root.path().join("README.md"), "a card").unwrap();
    let path = root.path().to_str().unwrap();
    let train = open(path, Split::Train).unwrap();
    assert_eq!(train.len(), 2 * ROWS);
    for index in [0, 59, 60, 119] {
        assert_eq!(bytes(&*train, index), Ok(image(index % ROWS)));
        assert_eq!(train.label(index), Some(index as u32 % ROWS as u32 % 5));
    }
    assert!(
        train
            .describe(84)
            .ends_with("train-00001-of-00002.parquet, row 24")
    );
    // The test part keeps its labels secret.
    let test = open(path, Split::Test).unwrap();
    assert!(
        test.describe(0)
            .ends_with("validation-00000-of-00001.parquet, row 0")
    );

    fs::remove_file(root.path().join("data/train-00000-of-00002.parquet")).unwrap();
    let message = failure(root.path(), Split::Train);
    assert!(message.contains("number 0 is missing"), "{message}");
}

#[test]
fn files_with_other_classes_are_no_part_of_a_set() {
    let root = folder(&[("a.parquet", "plain-v1"), ("b.parquet", "required")]);
    let message = failure(root.path(), Split::Train);
    let expected = "b.parquet: expected a Parquet file of images, found other names of classes";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_file_that_is_cut_or_was_never_one_is_refused() {
    let whole = fs::read(golden("plain-v1")).unwrap();
    let root = tempdir().unwrap();
    let path = root.path().join("train.parquet");
    let refused = |bytes: &[u8], expected: &str| {
        fs::write(&path, bytes).unwrap();
        let message = failure(&path, Split::Train);
        assert!(message.contains(expected), "{message}");
    };
    refused(&[], "0 bytes, too few for a footer");
    refused(&whole[..whole.len() - 1], "no PAR1 at the end");
    refused(&whole[whole.len() - 12..], "a footer of");
    let mut claims = whole.clone();
    let at = claims.len() - 8;
    claims[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    refused(&claims, "a footer of 4294967295 bytes, in a file of");
    claims[at..at + 4].copy_from_slice(&7_u32.to_le_bytes());
    refused(&claims, "a footer");
    claims[at + 4..].copy_from_slice(b"PARE");
    refused(&claims, "an encrypted footer");
    // The footer is whole, but what it points to is not there.
    refused(&whole[5000..], "expected a Parquet file of images");

    let folder = root.path().join("x.parquet");
    fs::create_dir(&folder).unwrap();
    assert!(matches!(
        open(folder.to_str().unwrap(), Split::Train),
        Err(DataError::Layout { .. })
    ));
}
