//! Data sets on disk: written into a temporary folder, opened, compared.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use eqco_data::{DataError, Split, open};
use flate2::Compression;
use flate2::write::GzEncoder;
use image::{ImageBuffer, ImageFormat, Rgb};
use tempfile::{TempDir, tempdir};

fn png(shade: u8) -> Vec<u8> {
    let picture = ImageBuffer::from_pixel(3, 2, Rgb([shade, 0, 255 - shade]));
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// A temporary folder with these files; an image gets the shade of its position.
fn folder(files: &[&str]) -> TempDir {
    let root = tempdir().unwrap();
    for (shade, file) in files.iter().enumerate() {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, png(shade as u8)).unwrap();
    }
    root
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Shade and label of every image.
fn contents(root: &Path, split: Split) -> Vec<(u8, Option<u32>)> {
    let dataset = open(text(root), split).unwrap();
    let shade = |index| dataset.image(index).unwrap().pixels()[0];
    (0..dataset.len())
        .map(|index| (shade(index), dataset.label(index)))
        .collect()
}

/// The text of the error and the hint.
fn failure(root: &Path, split: Split) -> String {
    let error = open(text(root), split).err().expect("must not open");
    format!("{error} | {}", error.hint().unwrap_or_default())
}

#[test]
fn split_folders_with_classes() {
    let root = folder(&[
        "train/dog/2.png",
        "train/dog/1.PNG",
        "train/cat/b.jpeg",
        "train/cat/notes.txt",
        "train/cat/.hidden.png",
        "train/no images here/readme.txt",
        "val/dog/x.jpg",
        "train/ant/a.png",
    ]);
    let train = open(text(root.path()), Split::Train).unwrap();
    assert_eq!(train.class_names(), ["ant", "cat", "dog"]);
    let expected = [(7, Some(0)), (2, Some(1)), (1, Some(2)), (0, Some(2))];
    assert_eq!(contents(root.path(), Split::Train), expected);
    assert!(train.describe(1).ends_with("train/cat/b.jpeg"));
    // A test folder without all classes keeps the labels of training.
    assert_eq!(contents(root.path(), Split::Test), [(6, Some(2))]);
    let test = open(text(root.path()), Split::Test).unwrap();
    assert_eq!(test.class_names(), train.class_names());
}

#[test]
fn class_folders_and_flat_folders_are_for_training_only() {
    let classes = folder(&["b/1.png", "a/1.png"]);
    assert_eq!(
        contents(classes.path(), Split::Train),
        [(1, Some(0)), (0, Some(1))]
    );
    let flat = folder(&["2.png", "1.png"]);
    assert_eq!(contents(flat.path(), Split::Train), [(1, None), (0, None)]);
    let in_train = folder(&["train/2.png", "train/1.png"]);
    assert_eq!(
        contents(in_train.path(), Split::Train),
        [(1, None), (0, None)]
    );
    for root in [&classes, &flat, &in_train] {
        let failure = failure(root.path(), Split::Test);
        assert!(
            failure.contains("expected a folder test/ or val/"),
            "{failure}"
        );
        assert!(failure.contains("train/CLASS/*.jpg"), "{failure}");
    }
}

#[test]
fn a_wrapping_folder_is_looked_through() {
    let root = folder(&["archive-1.0/train/a/1.png", "archive-1.0/test/a/1.png"]);
    assert_eq!(contents(root.path(), Split::Train), [(0, Some(0))]);
    assert_eq!(contents(root.path(), Split::Test), [(1, Some(0))]);
}

#[test]
fn wrong_layouts_are_explained() {
    let empty = tempdir().unwrap();
    let message = failure(empty.path(), Split::Train);
    assert!(message.contains(text(empty.path())), "{message}");
    assert!(
        message.contains("expected images") && message.contains("found no image"),
        "{message}"
    );

    let other_class = folder(&["train/a/1.png", "test/b/1.png"]);
    let message = failure(other_class.path(), Split::Test);
    assert!(message.contains("another class `b`"), "{message}");

    let no_classes = folder(&["train/a/1.png", "test/1.png"]);
    let message = failure(no_classes.path(), Split::Test);
    assert!(message.contains("one folder per class"), "{message}");

    let file = folder(&["1.png"]);
    let message = failure(&file.path().join("1.png"), Split::Train);
    assert!(
        message.contains("expected a folder, found a file"),
        "{message}"
    );
}

#[test]
fn broken_images_are_reported_when_they_are_read() {
    let root = folder(&["a/1.png"]);
    fs::write(root.path().join("a/2.jpg"), "not an image").unwrap();
    let dataset = open(text(root.path()), Split::Train).unwrap();
    assert_eq!(dataset.len(), 2);
    assert!(dataset.image(0).is_ok());
    match dataset.image(1) {
        Err(DataError::Decode { image, .. }) => assert!(image.ends_with("a/2.jpg"), "{image}"),
        other => panic!("{other:?}"),
    }
}

/// An IDX file of the given sizes.
fn idx(magic: u32, sizes: &[u32], payload: &[u8]) -> Vec<u8> {
    let header = [magic]
        .into_iter()
        .chain(sizes.iter().copied())
        .flat_map(u32::to_be_bytes);
    header.chain(payload.iter().copied()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A folder of two 2 x 3 training images, plain, and one test image, compressed.
fn idx_folder() -> TempDir {
    let root = tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| fs::write(root.path().join(name), bytes).unwrap();
    let pixels: Vec<u8> = (0..12).collect();
    write("train-images-idx3-ubyte", idx(2051, &[2, 2, 3], &pixels));
    write("train-labels-idx1-ubyte", idx(2049, &[2], &[1, 0]));
    write(
        "t10k-images-idx3-ubyte.gz",
        gzip(&idx(2051, &[1, 2, 3], &[9; 6])),
    );
    write("t10k-labels-idx1-ubyte.gz", gzip(&idx(2049, &[1], &[1])));
    root
}

#[test]
fn idx_files_plain_and_compressed() {
    let root = idx_folder();
    let train = open(text(root.path()), Split::Train).unwrap();
    assert_eq!(
        (train.len(), train.label(0), train.label(1)),
        (2, Some(1), Some(0))
    );
    assert_eq!(train.class_names(), ["0", "1"]);
    let image = train.image(1).unwrap();
    assert_eq!((image.width(), image.height()), (3, 2));
    let expected: Vec<u8> = (6..12).flat_map(|value| [value; 3]).collect();
    assert_eq!(image.pixels(), expected);
    let test = open(text(root.path()), Split::Test).unwrap();
    assert_eq!(test.image(0).unwrap().pixels(), [9; 18]);
}

#[test]
fn hostile_idx_headers_are_refused() {
    let root = idx_folder();
    let images = root.path().join("train-images-idx3-ubyte");
    for (content, expected) in [
        // Four billion images: refused by the header alone.
        (
            idx(2051, &[u32::MAX, 28, 28], &[0; 16]),
            "a header that claims [4294967295, 28, 28]",
        ),
        // The product would overflow 64 bits.
        (idx(2051, &[u32::MAX; 3], &[]), "a header that claims"),
        // Two gigabytes claimed, sixteen bytes there: memory grows with the content only.
        (
            idx(2051, &[1 << 11, 1 << 10, 1 << 10], &[0; 16]),
            "found fewer bytes",
        ),
        (idx(2051, &[0, 28, 28], &[]), "a header that claims"),
        (idx(2051, &[2, 2, 3], &[0; 13]), "found more bytes"),
        (idx(2051, &[3, 2, 2], &[0; 12]), "expected 3 labels"),
        (
            idx(2052, &[2, 2, 3], &[0; 12]),
            "magic number 2051, found 2052",
        ),
        (vec![0, 0], "cannot read"),
        (Vec::new(), "cannot read"),
    ] {
        for bytes in [content.clone(), gzip(&content)] {
            fs::write(&images, bytes).unwrap();
            let failure = failure(root.path(), Split::Train);
            assert!(
                failure.contains(expected),
                "expected `{expected}` in `{failure}`"
            );
        }
    }
    fs::remove_file(images).unwrap();
    let failure = failure(root.path(), Split::Train);
    assert!(
        failure.contains("train-images-idx3-ubyte (or .gz)"),
        "{failure}"
    );
}

#[test]
fn cifar_binary_batches() {
    let root = tempdir().unwrap();
    let inner = root.path().join("cifar-10-batches-bin");
    fs::create_dir(&inner).unwrap();
    let record = |label: u8| {
        let planes = [[10 + label; 1024], [20 + label; 1024], [30 + label; 1024]];
        [&[label], planes.as_flattened()].concat()
    };
    for batch in 1..=5 {
        let path = inner.join(format!("data_batch_{batch}.bin"));
        fs::write(path, [record(batch), record(0)].concat()).unwrap();
    }
    fs::write(inner.join("test_batch.bin"), record(9)).unwrap();
    let names = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
    fs::write(inner.join("batches.meta.txt"), names).unwrap();

    let train = open(text(root.path()), Split::Train).unwrap();
    assert_eq!(
        (train.len(), train.label(8), train.label(9)),
        (10, Some(5), Some(0))
    );
    assert_eq!(train.class_names()[9], "truck");
    assert_eq!(train.image(8).unwrap().pixels(), [15, 25, 35].repeat(1024));
    assert_eq!(
        open(text(root.path()), Split::Test).unwrap().label(0),
        Some(9)
    );

    fs::write(inner.join("test_batch.bin"), record(10)).unwrap();
    let message = failure(&inner, Split::Test);
    assert!(
        message.contains("labels from 0 to 9, found the label 10"),
        "{message}"
    );
    fs::write(inner.join("test_batch.bin"), [0; 3000]).unwrap();
    let message = failure(&inner, Split::Test);
    assert!(message.contains("records of 3073 bytes"), "{message}");
}

#[test]
fn cifar_100_has_fine_labels() {
    let root = tempdir().unwrap();
    let inner = root.path().join("cifar-100-binary");
    fs::create_dir(&inner).unwrap();
    let record = |coarse: u8, fine: u8| {
        let planes = [[10 + fine; 1024], [20 + fine; 1024], [30 + fine; 1024]];
        [&[coarse, fine], planes.as_flattened()].concat()
    };
    fs::write(
        inner.join("train.bin"),
        [record(19, 99), record(0, 3)].concat(),
    )
    .unwrap();
    fs::write(inner.join("test.bin"), record(1, 98)).unwrap();
    let names: Vec<String> = (0..100).map(|class| format!("fine {class}")).collect();
    fs::write(inner.join("fine_label_names.txt"), names.join("\n")).unwrap();
    fs::write(inner.join("coarse_label_names.txt"), "coarse\n").unwrap();

    let train = open(text(root.path()), Split::Train).unwrap();
    assert_eq!(
        (train.len(), train.label(0), train.label(1)),
        (2, Some(99), Some(3))
    );
    assert_eq!(train.class_names()[99], "fine 99");
    assert_eq!(train.image(1).unwrap().pixels(), [13, 23, 33].repeat(1024));
    let test = open(text(root.path()), Split::Test).unwrap();
    assert_eq!((test.len(), test.label(0)), (1, Some(98)));

    // A coarse label may be anything, a fine one may not.
    fs::write(inner.join("test.bin"), record(200, 100)).unwrap();
    let message = failure(&inner, Split::Test);
    assert!(
        message.contains("labels from 0 to 99, found the label 100"),
        "{message}"
    );
    fs::write(inner.join("test.bin"), [0; 3073]).unwrap();
    let message = failure(&inner, Split::Test);
    assert!(message.contains("records of 3074 bytes"), "{message}");
    fs::write(inner.join("fine_label_names.txt"), "one").unwrap();
    let message = failure(&inner, Split::Train);
    assert!(
        message.contains("100 class names, found 1 lines"),
        "{message}"
    );
}
