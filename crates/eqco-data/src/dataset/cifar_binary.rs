//! CIFAR-10 and CIFAR-100 in their "binary versions".

use std::path::{Path, PathBuf};

use super::{Dataset, Split};
use crate::{DataError, Image};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// What differs between the two.
#[derive(Debug)]
struct Layout {
    train: &'static [&'static str],
    test: &'static [&'static str],
    class_names: &'static str,
    class_count: u8,
    /// Labels in front of the red, green and blue planes; the last of them is taken.
    label_bytes: usize,
}

const CIFAR10: Layout = Layout {
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: &["test_batch.bin"],
    class_names: "batches.meta.txt",
    class_count: 10,
    label_bytes: 1,
};

/// Its first label is one of 20 coarse ones.
const CIFAR100: Layout = Layout {
    train: &["train.bin"],
    test: &["test.bin"],
    class_names: "fine_label_names.txt",
    class_count: 100,
    label_bytes: 2,
};

impl Layout {
    /// Bytes of an image and its labels.
    const fn record(&self) -> usize {
        self.label_bytes + 3 * PLANE
    }

    /// Twice the size of the largest real file, which has 50,000 records.
    const fn max_file_bytes(&self) -> u64 {
        100_000 * self.record() as u64
    }
}

/// 32 x 32 colour images in ten or a hundred classes, held in memory.
///
/// CIFAR-10 is `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, with class names in `batches.meta.txt`; CIFAR-100
/// is `train.bin` and `test.bin`, with the names of its fine classes, which are the labels, in `fine_label_names.txt`.
///
/// Format: <https://www.cs.toronto.edu/~kriz/cifar.html> (Krizhevsky, 2009, "Learning multiple
/// layers of features from tiny images").
#[derive(Debug)]
pub struct CifarBinary {
    name: String,
    class_names: Vec<String>,
    path: PathBuf,
    layout: &'static Layout,
    records: Vec<u8>,
}

impl CifarBinary {
    /// Whether a folder has a batch file of CIFAR-10.
    pub(super) fn has_10_in(folder: &Path) -> bool {
        ["data_batch_1.bin", "test_batch.bin"]
            .iter()
            .any(|name| folder.join(name).is_file())
    }

    /// Whether a folder has the class names and an image file of CIFAR-100.
    pub(super) fn has_100_in(folder: &Path) -> bool {
        let has = |name| folder.join(name).is_file();
        has(CIFAR100.class_names) && (has("train.bin") || has("test.bin"))
    }

    /// Reads a split of CIFAR-10; `name` is for results.
    ///
    /// # Errors
    /// [`DataError::Io`] if a file is missing, [`DataError::Layout`] if a batch file is not a
    /// whole number of records, a label is 10 or more, or there are not ten class names.
    pub fn open(folder: &Path, name: &str, split: Split) -> Result<Self, DataError> {
        Self::read(&CIFAR10, folder, name, split)
    }

    /// Reads a split of CIFAR-100 with its fine labels; `name` is for results.
    ///
    /// # Errors
    /// As [`CifarBinary::open`], with a hundred classes.
    pub fn open_100(folder: &Path, name: &str, split: Split) -> Result<Self, DataError> {
        Self::read(&CIFAR100, folder, name, split)
    }

    fn read(
        layout: &'static Layout,
        folder: &Path,
        name: &str,
        split: Split,
    ) -> Result<Self, DataError> {
        let files = match split {
            Split::Train => layout.train,
            Split::Test => layout.test,
        };
        let mut records = Vec::new();
        for file in files {
            records.extend(read_records(layout, &folder.join(file))?);
        }
        Ok(Self {
            name: name.to_owned(),
            class_names: read_class_names(layout, &folder.join(layout.class_names))?,
            path: folder.to_path_buf(),
            layout,
            records,
        })
    }

    /// Label and planes of an image.
    fn record(&self, index: usize) -> (u8, &[u8]) {
        let size = self.layout.record();
        let record = &self.records[index * size..(index + 1) * size];
        let (labels, planes) = record.split_at(self.layout.label_bytes);
        (labels[labels.len() - 1], planes)
    }
}

fn read_records(layout: &Layout, path: &Path) -> Result<Vec<u8>, DataError> {
    let io_error = |error| DataError::io(path, error);
    let (record, most) = (layout.record(), layout.max_file_bytes());
    let size = path.metadata().map_err(io_error)?.len();
    if size == 0 || size > most || size % record as u64 != 0 {
        let expected = format!("records of {record} bytes, {most} bytes at most");
        return Err(DataError::layout(path, expected, format!("{size} bytes")));
    }
    let records = std::fs::read(path).map_err(io_error)?;
    let mut labels = records.iter().skip(layout.label_bytes - 1).step_by(record);
    if let Some(label) = labels.find(|&&label| label >= layout.class_count) {
        return Err(DataError::layout(
            path,
            format!("labels from 0 to {}", layout.class_count - 1),
            format!("the label {label}"),
        ));
    }
    Ok(records)
}

fn read_class_names(layout: &Layout, path: &Path) -> Result<Vec<String>, DataError> {
    let text = std::fs::read_to_string(path).map_err(|error| DataError::io(path, error))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let names: Vec<String> = lines.map(str::to_owned).collect();
    if names.len() != usize::from(layout.class_count) {
        return Err(DataError::layout(
            path,
            format!("{} class names", layout.class_count),
            format!("{} lines", names.len()),
        ));
    }
    Ok(names)
}

impl Dataset for CifarBinary {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.records.len() / self.layout.record()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        Some(u32::from(self.record(index).0))
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let (planes, _) = self.record(index).1.as_chunks::<PLANE>();
        let pixels = (0..PLANE).flat_map(|at| [planes[0][at], planes[1][at], planes[2][at]]);
        Image::new(SIDE, SIDE, pixels.collect())
    }

    fn describe(&self, index: usize) -> String {
        format!("{}, image {index}", self.path.display())
    }
}
