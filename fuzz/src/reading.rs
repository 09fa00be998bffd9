//! What holds for every data set that opens.

use std::path::Path;

use eqco_data::{DataError, Dataset, Format, Split, open_as};

/// Images that are read of a data set.
const MOST_READ: usize = 12;

/// Opens a source in a format; where that succeeds, reads its first images and its last one.
pub fn open_and_read(path: &Path, split: Split, format: Format) {
    let path = path.to_str().expect("temporary paths are UTF-8");
    match open_as(path, split, Some(format)) {
        Ok(dataset) => read(&*dataset),
        Err(error) => told(&error),
    }
}

/// Reads some images, each as bytes or, where the source has pixels, as pixels.
pub fn read(dataset: &dyn Dataset) {
    let (len, classes) = (dataset.len(), dataset.class_names().len());
    assert!(len > 0, "a data set without images is refused");
    let last = (len > MOST_READ).then(|| len - 1);
    for index in (0..len.min(MOST_READ)).chain(last) {
        if let Some(label) = dataset.label(index) {
            assert!((label as usize) < classes, "{label} of {classes} classes");
        }
        assert!(!dataset.describe(index).is_empty());
        match dataset.encoded(index) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let image = dataset.image(index).expect("pixels have been checked");
                assert_eq!(image.pixels().len(), image.width() * image.height() * 3);
            }
            Err(error) => told(&error),
        }
    }
}

/// Every error can be shown.
pub fn told(error: &DataError) {
    assert!(!error.to_string().is_empty());
    error.hint();
}
