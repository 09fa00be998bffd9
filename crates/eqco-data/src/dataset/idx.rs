//! The IDX files of MNIST and its relatives.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::embedded::FASHION_MNIST_CLASSES;
use super::{Dataset, Split};
use crate::{DataError, Image};

const IMAGES_MAGIC: u32 = 2051;
const LABELS_MAGIC: u32 = 2049;

/// The largest payload that is read (2 GiB; MNIST has 47 MB, EMNIST 640 MB).
const MAX_PAYLOAD: u64 = 1 << 31;

/// Grey images and labels from IDX files, plain or gzip-compressed, held in memory.
///
/// A folder has the usual four files `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
/// `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`, each with or without `.gz`; only the two
/// of the wanted split need to be there. Format: <http://yann.lecun.com/exdb/mnist/>.
#[derive(Debug)]
pub struct Idx {
    name: String,
    class_names: Vec<String>,
    path: PathBuf,
    width: usize,
    height: usize,
    /// `[N, height, width]`.
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Idx {
    /// Whether a folder has an image file with one of the usual names.
    pub(super) fn is_in(folder: &Path) -> bool {
        [Split::Train, Split::Test]
            .iter()
            .any(|split| find(folder, *split, "images-idx3").is_some())
    }

    /// Reads a split; `name` is for results (and "Fashion-MNIST" brings its class names along).
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::Layout`] if a file is missing, has another magic number,
    /// claims a size that it does not have, or if images and labels do not match.
    pub fn open(folder: &Path, name: &str, split: Split) -> Result<Self, DataError> {
        let path = required(folder, split, "images-idx3")?;
        let (sizes, pixels) = read(&path, IMAGES_MAGIC)?;
        let [count, height, width] = sizes;
        let labels_path = required(folder, split, "labels-idx1")?;
        let ([label_count], labels) = read(&labels_path, LABELS_MAGIC)?;
        if label_count != count {
            let expected = format!("{count} labels, as many as images");
            return Err(DataError::layout(
                labels_path,
                expected,
                label_count.to_string(),
            ));
        }
        let class_count = labels
            .iter()
            .max()
            .map_or(0, |&largest| usize::from(largest) + 1);
        let class_names = if name == "Fashion-MNIST" && class_count <= FASHION_MNIST_CLASSES.len() {
            FASHION_MNIST_CLASSES.map(str::to_owned).to_vec()
        } else {
            (0..class_count).map(|class| class.to_string()).collect()
        };
        Ok(Self {
            name: name.to_owned(),
            class_names,
            path,
            width,
            height,
            pixels,
            labels,
        })
    }
}

fn file_name(split: Split, kind: &str) -> String {
    let prefix = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    format!("{prefix}-{kind}-ubyte")
}

/// The plain or the compressed file.
fn find(folder: &Path, split: Split, kind: &str) -> Option<PathBuf> {
    let plain = file_name(split, kind);
    [folder.join(&plain), folder.join(plain + ".gz")]
        .into_iter()
        .find(|path| path.is_file())
}

fn required(folder: &Path, split: Split, kind: &str) -> Result<PathBuf, DataError> {
    find(folder, split, kind).ok_or_else(|| {
        let expected = format!("a file {} (or .gz)", file_name(split, kind));
        DataError::layout(folder, expected, "no such file")
    })
}

/// Reads a file of `RANK` dimensions: the sizes and the payload.
///
/// The header is checked against what the file really contains; memory grows with the content,
/// never with the claim.
fn read<const RANK: usize>(path: &Path, magic: u32) -> Result<([usize; RANK], Vec<u8>), DataError> {
    let io_error = |error| DataError::io(path, error);
    let mut file = File::open(path).map_err(io_error)?;
    let mut start = [0; 2];
    let got = file.read(&mut start).map_err(io_error)?;
    file.rewind().map_err(io_error)?;
    let mut content: Box<dyn Read> = if got == 2 && start == [0x1f, 0x8b] {
        Box::new(GzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let mut next_number = || {
        let mut bytes = [0; 4];
        content
            .read_exact(&mut bytes)
            .map(|()| u32::from_be_bytes(bytes))
            .map_err(io_error)
    };
    let found = next_number()?;
    if found != magic {
        return Err(DataError::layout(
            path,
            format!("an IDX file with magic number {magic}"),
            format!("{found}"),
        ));
    }
    let mut sizes = [0; RANK];
    for size in &mut sizes {
        *size = next_number()? as usize;
    }
    let payload = sizes
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size as u64));
    let Some(payload) = payload.filter(|bytes| (1..=MAX_PAYLOAD).contains(bytes)) else {
        return Err(DataError::layout(
            path,
            format!("1 to {MAX_PAYLOAD} bytes"),
            format!("a header that claims {sizes:?}"),
        ));
    };
    let mut bytes = Vec::new();
    content
        .take(payload + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error)?;
    if bytes.len() as u64 != payload {
        let found = if bytes.len() as u64 > payload {
            "more"
        } else {
            "fewer"
        };
        let expected = format!("{payload} bytes after the header, which says {sizes:?}");
        return Err(DataError::layout(path, expected, format!("{found} bytes")));
    }
    Ok((sizes, bytes))
}

impl Dataset for Idx {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        Some(u32::from(self.labels[index]))
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let size = self.width * self.height;
        let grey = &self.pixels[index * size..(index + 1) * size];
        Image::from_grey(self.width, self.height, grey)
    }

    fn describe(&self, index: usize) -> String {
        format!("{}, image {index}", self.path.display())
    }
}
