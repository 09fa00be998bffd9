//! CIFAR-10 in its "binary version".

use std::path::{Path, PathBuf};

use super::{Dataset, Split};
use crate::{DataError, Image};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// One label byte, then the red, green and blue planes.
const RECORD: usize = 1 + 3 * PLANE;
const CLASS_COUNT: u8 = 10;
/// Ten times the size of a real batch file.
const MAX_FILE_BYTES: u64 = 10 * 10_000 * RECORD as u64;

/// 32 x 32 colour images from `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, held
/// in memory, with class names from `batches.meta.txt`.
///
/// Format: <https://www.cs.toronto.edu/~kriz/cifar.html> (Krizhevsky, 2009, "Learning multiple
/// layers of features from tiny images").
#[derive(Debug)]
pub struct CifarBinary {
    name: String,
    class_names: Vec<String>,
    path: PathBuf,
    records: Vec<u8>,
}

impl CifarBinary {
    /// Whether a folder has a batch file.
    pub(super) fn is_in(folder: &Path) -> bool {
        ["data_batch_1.bin", "test_batch.bin"]
            .iter()
            .any(|name| folder.join(name).is_file())
    }

    /// Reads a split; `name` is for results.
    ///
    /// # Errors
    /// [`DataError::Io`] if a file is missing, [`DataError::Layout`] if a batch file is not a
    /// whole number of records, a label is 10 or more, or there are not ten class names.
    pub fn open(folder: &Path, name: &str, split: Split) -> Result<Self, DataError> {
        let files = match split {
            Split::Train => (1..=5)
                .map(|number| format!("data_batch_{number}.bin"))
                .collect(),
            Split::Test => vec!["test_batch.bin".to_owned()],
        };
        let mut records = Vec::new();
        for file in files {
            records.extend(read_records(&folder.join(file))?);
        }
        Ok(Self {
            name: name.to_owned(),
            class_names: read_class_names(&folder.join("batches.meta.txt"))?,
            path: folder.to_path_buf(),
            records,
        })
    }

    fn record(&self, index: usize) -> &[u8] {
        &self.records[index * RECORD..(index + 1) * RECORD]
    }
}

fn read_records(path: &Path) -> Result<Vec<u8>, DataError> {
    let io_error = |error| DataError::io(path, error);
    let size = path.metadata().map_err(io_error)?.len();
    if size == 0 || size > MAX_FILE_BYTES || size % RECORD as u64 != 0 {
        let expected = format!("records of {RECORD} bytes, {MAX_FILE_BYTES} bytes at most");
        return Err(DataError::layout(path, expected, format!("{size} bytes")));
    }
    let records = std::fs::read(path).map_err(io_error)?;
    if let Some(label) = records
        .iter()
        .step_by(RECORD)
        .find(|&&label| label >= CLASS_COUNT)
    {
        return Err(DataError::layout(
            path,
            "labels from 0 to 9",
            format!("the label {label}"),
        ));
    }
    Ok(records)
}

fn read_class_names(path: &Path) -> Result<Vec<String>, DataError> {
    let text = std::fs::read_to_string(path).map_err(|error| DataError::io(path, error))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let names: Vec<String> = lines.map(str::to_owned).collect();
    if names.len() != usize::from(CLASS_COUNT) {
        return Err(DataError::layout(
            path,
            "ten class names",
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
        self.records.len() / RECORD
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        Some(u32::from(self.record(index)[0]))
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let (planes, _) = self.record(index)[1..].as_chunks::<PLANE>();
        let pixels = (0..PLANE).flat_map(|at| [planes[0][at], planes[1][at], planes[2][at]]);
        Image::new(SIDE, SIDE, pixels.collect())
    }

    fn describe(&self, index: usize) -> String {
        format!("{}, image {index}", self.path.display())
    }
}
