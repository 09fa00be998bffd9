//! A whole data set in one file, which is read through a memory map.
//!
//! A file for every image costs a few system calls, and on network disks a round trip, for each; a packed file is opened
//! once. Images keep their order, their labels and, unless they are made smaller, their bytes, so that a run on the file is
//! the run on what it was made of. [`mod@format`] describes the bytes, [`PackWriter`] writes them, [`Packed`] reads
//! them, and [`stored_image`] decides what becomes of an image on its way.

pub mod format;
mod names;
mod reader;
mod stored_image;
mod writer;

pub use reader::Packed;
pub use stored_image::{Change, Reduction, StoredImage, stored_image};
pub use writer::PackWriter;
