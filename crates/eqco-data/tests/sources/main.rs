//! ImageNet and other data sets in archives: the same images from every source, byte for byte, and every wrong layout explained.

mod imagenet;
mod labels;
mod shards;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use eqco_data::{Dataset, Format, Split, open_as};
use image::{ImageBuffer, ImageFormat, Rgb};
use tar::{Builder, Header};
use tempfile::TempDir;

/// Three classes with images under their names in ImageNet, the classes and one of them out of order.
const TRAIN: [(&str, &str, u8); 5] = [
    ("n02119789", "n02119789_9.JPEG", 1),
    ("n02119789", "n02119789_10.JPEG", 2),
    ("n01440764", "n01440764_1.JPEG", 3),
    ("n02100735", "n02100735_7.JPEG", 4),
    ("n02100735", "n02100735_8.JPEG", 5),
];

/// Their numbers in the order of names, and the images there.
const TRAIN_CONTENTS: [(u8, u32); 5] = [(3, 0), (4, 1), (5, 1), (2, 2), (1, 2)];

const VAL: [(&str, u8); 4] = [
    ("ILSVRC2012_val_00000003.JPEG", 13),
    ("ILSVRC2012_val_00000001.JPEG", 11),
    ("ILSVRC2012_val_00000002.JPEG", 12),
    ("ILSVRC2012_val_00000004.JPEG", 14),
];

/// In the order of names, with classes as in [`VAL_WNIDS`].
const VAL_CONTENTS: [(u8, u32); 4] = [(11, 2), (12, 0), (13, 1), (14, 0)];

const VAL_WNIDS: [&str; 4] = ["n02119789", "n01440764", "n02100735", "n01440764"];

/// A picture of one colour, which tells its shade; the files differ in size.
fn png(shade: u8) -> Vec<u8> {
    let picture = ImageBuffer::from_pixel(u32::from(shade), 2, Rgb([shade, 0, 255 - shade]));
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// An archive of these files.
fn archive(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, &**content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Writes files below a folder, with the folders that they need.
fn write(root: &Path, files: &[(&str, &[u8])]) {
    for (name, content) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// The images as folders.
fn unpacked() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (class, name, shade) in TRAIN {
        write(
            root.path(),
            &[(&format!("train/{class}/{name}"), &png(shade))],
        );
    }
    for (name, shade) in VAL {
        write(root.path(), &[(&format!("val/{name}"), &png(shade))]);
    }
    root
}

/// The images as ImageNet's two archives.
fn original_archives() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let classes = ["n02119789", "n01440764", "n02100735"].map(|class| {
        let images = TRAIN.iter().filter(|(of, ..)| *of == class);
        let images: Vec<_> = images
            .map(|(_, name, shade)| (*name, png(*shade)))
            .collect();
        (format!("{class}.tar"), archive(&images))
    });
    let classes: Vec<_> = classes
        .iter()
        .map(|(name, archive)| (name.as_str(), archive.clone()))
        .collect();
    let val = VAL.map(|(name, shade)| (name, png(shade)));
    write(
        root.path(),
        &[
            ("ILSVRC2012_img_train.tar", &archive(&classes)),
            ("ILSVRC2012_img_val.tar", &archive(&val)),
        ],
    );
    root
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn opened(path: &Path, split: Split) -> std::sync::Arc<dyn Dataset> {
    open_as(text(path), split, None).unwrap()
}

/// Shade and label of every image; that the file is the one that was written, and its pixels those of the file.
fn contents(dataset: &dyn Dataset) -> Vec<(u8, Option<u32>)> {
    (0..dataset.len())
        .map(|index| {
            let image = dataset.image(index).unwrap();
            let shade = image.pixels()[0];
            assert_eq!(dataset.encoded(index).unwrap().unwrap(), png(shade));
            assert_eq!((image.width(), image.height()), (usize::from(shade), 2));
            (shade, dataset.label(index))
        })
        .collect()
}

fn labelled(expected: &[(u8, u32)]) -> Vec<(u8, Option<u32>)> {
    expected
        .iter()
        .map(|&(shade, label)| (shade, Some(label)))
        .collect()
}

/// The text of the error and the hint.
fn failure_as(path: &Path, split: Split, format: Option<Format>) -> String {
    let error = open_as(text(path), split, format)
        .err()
        .expect("must not open");
    format!("{error} | {}", error.hint().unwrap_or_default())
}

fn refused(path: &Path, split: Split, expected: &str) {
    let failure = failure_as(path, split, None);
    assert!(
        failure.contains(expected),
        "expected `{expected}` in `{failure}`"
    );
}
