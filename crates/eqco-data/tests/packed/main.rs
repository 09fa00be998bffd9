//! Packed files: what comes back of them, and what damage does.

mod damage;
mod reading;
mod round_trip;
mod writing;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eqco_data::Image;
use eqco_data::dataset::packed::{PackWriter, Reduction, stored_image};
use eqco_data::{DataError, Dataset, Split, encode, open};

/// An image with a size and a colour that nobody else has.
fn picture(number: u8, width: usize, height: usize) -> Image {
    let pixels = (0..width * height).flat_map(|at| [number, (at * 7) as u8, 255 - number]);
    Image::new(width, height, pixels.collect()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/files");
    fs::read(folder.join(name)).unwrap()
}

/// A folder with five training and two test images in two classes, two of which are no images.
fn folder_set(root: &Path) -> PathBuf {
    let folder = root.join("set");
    let files: [(&str, Vec<u8>); 7] = [
        ("train/cat/1.jpg", golden("420.jpg")),
        ("train/cat/2.jpg", golden("cmyk.jpg")),
        ("train/cat/3.jpg", b"a letter".to_vec()),
        ("train/dog/1.JPEG", golden("rgb.png")),
        ("train/dog/2.png", Vec::new()),
        ("test/dog/1.png", golden("grey.png")),
        ("test/dog/2.png", encode::png(&picture(9, 5, 4)).unwrap()),
    ];
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

/// Packs parts of one data set.
fn pack(path: &Path, parts: &[(Split, &dyn Dataset)], reduction: Option<Reduction>) {
    let (_, first) = parts[0];
    let mut writer = PackWriter::create(path, first.name(), first.class_names()).unwrap();
    for (split, dataset) in parts {
        for index in 0..dataset.len() {
            let stored = stored_image(*dataset, index, reduction).unwrap();
            writer
                .add(*split, dataset.label(index), &stored.bytes)
                .unwrap();
        }
    }
    let bytes = writer.finish().unwrap();
    assert_eq!(bytes, fs::metadata(path).unwrap().len());
}

/// The folder of [`folder_set`] as a packed file.
fn packed_folder(root: &Path) -> PathBuf {
    let folder = folder_set(root);
    let [train, test] = [Split::Train, Split::Test].map(|split| opened(&folder, split));
    let path = root.join("set.eqco");
    pack(
        &path,
        &[(Split::Train, &*train), (Split::Test, &*test)],
        None,
    );
    path
}

fn opened(path: &Path, split: Split) -> Arc<dyn Dataset> {
    open(text(path), split).unwrap()
}

/// The error of opening a path, with its hint.
fn failure(path: &Path, split: Split) -> String {
    let error = open(text(path), split).err().expect("must not open");
    format!("{error} | {}", error.hint().unwrap_or_default())
}

/// The label and the file of an image.
type Labelled = (Option<u32>, Vec<u8>);

/// All images of a data set.
fn contents(dataset: &dyn Dataset) -> Result<Vec<Labelled>, DataError> {
    (0..dataset.len())
        .map(|index| {
            let bytes = dataset.encoded(index)?.expect("packed files hold files");
            Ok((dataset.label(index), bytes.into_owned()))
        })
        .collect()
}
