//! 12,000 images of Fashion-MNIST, compiled into the binary.

use std::sync::OnceLock;

use super::{Dataset, Split};
use crate::decode;
use crate::{DataError, Image};

const SIDE: usize = 28;
const IMAGE_BYTES: usize = SIDE * SIDE;

/// The classes of Fashion-MNIST in the order of their labels.
pub(super) const FASHION_MNIST_CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// One contact sheet per class.
type Sheets = [&'static [u8]; 10];

macro_rules! sheets {
    ($split:literal) => {
        [
            include_bytes!(concat!(
                "../../data/embedded/",
                $split,
                "/0-t-shirt-top.png"
            )),
            include_bytes!(concat!("../../data/embedded/", $split, "/1-trouser.png")),
            include_bytes!(concat!("../../data/embedded/", $split, "/2-pullover.png")),
            include_bytes!(concat!("../../data/embedded/", $split, "/3-dress.png")),
            include_bytes!(concat!("../../data/embedded/", $split, "/4-coat.png")),
            include_bytes!(concat!("../../data/embedded/", $split, "/5-sandal.png")),
            include_bytes!(concat!("../../data/embedded/", $split, "/6-shirt.png")),
            include_bytes!(concat!("../../data/embedded/", $split, "/7-sneaker.png")),
            include_bytes!(concat!("../../data/embedded/", $split, "/8-bag.png")),
            include_bytes!(concat!("../../data/embedded/", $split, "/9-ankle-boot.png")),
        ]
    };
}

static TRAIN_SHEETS: Sheets = sheets!("train");
static TEST_SHEETS: Sheets = sheets!("test");

/// The embedded set: 10,000 training and 2,000 test images, 28 x 28, grey, ten classes with
/// equally many images each.
///
/// Image `i` is number `i / 10` of class `i % 10`, so every prefix is balanced. The sheets are
/// decoded once, when a split is first opened, and stay in memory (8 MB and 1.6 MB).
///
/// Source: Xiao, Rasul and Vollgraf, 2017, "Fashion-MNIST: a novel image dataset for benchmarking
/// machine learning algorithms".
#[derive(Debug)]
pub struct Embedded {
    class_names: Vec<String>,
    /// Grey pixels of each class, image after image.
    classes: &'static [Vec<u8>],
}

impl Embedded {
    /// Opens a split, decoding it if this is the first time.
    ///
    /// # Errors
    /// [`DataError::Decode`] if the data in the binary are damaged.
    pub fn open(split: Split) -> Result<Self, DataError> {
        static TRAIN: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
        static TEST: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
        let (sheets, columns, decoded) = match split {
            Split::Train => (&TRAIN_SHEETS, 40, &TRAIN),
            Split::Test => (&TEST_SHEETS, 20, &TEST),
        };
        let classes = match decoded.get() {
            Some(classes) => classes,
            None => {
                let classes = sheets
                    .iter()
                    .map(|sheet| cut(sheet, columns))
                    .collect::<Result<_, _>>()?;
                decoded.get_or_init(|| classes)
            }
        };
        let class_names = FASHION_MNIST_CLASSES.map(str::to_owned).to_vec();
        Ok(Self {
            class_names,
            classes,
        })
    }
}

/// Cuts a contact sheet of `columns` tiles a row into images, one after the other.
fn cut(sheet: &[u8], columns: usize) -> Result<Vec<u8>, DataError> {
    let sheet = decode::decode(sheet, "embedded contact sheet")?;
    let rows = sheet.height() / SIDE;
    let mut images = Vec::with_capacity(rows * columns * IMAGE_BYTES);
    for tile in 0..rows * columns {
        for y in 0..SIDE {
            let start = (tile / columns * SIDE + y) * sheet.width() + tile % columns * SIDE;
            let row = &sheet.pixels()[start * 3..(start + SIDE) * 3];
            images.extend(row.iter().step_by(3));
        }
    }
    Ok(images)
}

impl Dataset for Embedded {
    fn name(&self) -> &str {
        "Fashion-MNIST 10k/2k (embedded)"
    }

    fn len(&self) -> usize {
        self.classes
            .iter()
            .map(|class| class.len() / IMAGE_BYTES)
            .sum()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        Some((index % self.classes.len()) as u32)
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let start = index / self.classes.len() * IMAGE_BYTES;
        let grey = &self.classes[index % self.classes.len()][start..start + IMAGE_BYTES];
        Image::from_grey(SIDE, SIDE, grey)
    }

    fn describe(&self, index: usize) -> String {
        format!("embedded image {index}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32 of each class's pixels, as `python/cut_fashion_mnist.py` prints them.
    const TRAIN_CHECKSUMS: [u32; 10] = [
        0x136f2ade, 0x6b2d6d60, 0x9e9b0eaa, 0x06cc3c70, 0x95467211, 0x8c144bd6, 0x2d513ddc,
        0xeb09ecd5, 0xc6a08820, 0x60f6f12b,
    ];
    const TEST_CHECKSUMS: [u32; 10] = [
        0x3faa1bee, 0x29fb0967, 0x777a05dd, 0x1bd8f05d, 0x54a8c8a5, 0xb36b5a0f, 0x30dc935c,
        0x9d80d8f8, 0x390ddd21, 0x40006d55,
    ];

    #[test]
    fn pixels_are_those_of_the_idx_files() {
        for (split, checksums) in [
            (Split::Train, TRAIN_CHECKSUMS),
            (Split::Test, TEST_CHECKSUMS),
        ] {
            let set = Embedded::open(split).unwrap();
            for (class, &expected) in set.classes.iter().zip(&checksums) {
                let mut checksum = flate2::Crc::new();
                checksum.update(class);
                assert_eq!(checksum.sum(), expected);
            }
        }
    }

    #[test]
    fn classes_are_balanced() {
        for (split, per_class) in [(Split::Train, 1000), (Split::Test, 200)] {
            let set = Embedded::open(split).unwrap();
            assert_eq!(set.len(), 10 * per_class);
            let mut counts = [0; 10];
            for index in 0..set.len() {
                counts[set.label(index).unwrap() as usize] += 1;
                let image = set.image(index).unwrap();
                assert_eq!((image.width(), image.height()), (28, 28));
            }
            assert_eq!(counts, [per_class; 10]);
        }
    }
}
