//! Evaluation of image representations: weighted nearest neighbours and the linear probe.
//!
//! Everything starts from [`Features`]: one row of numbers per image with its label, cached in
//! memory. They come from an encoder ([`represent`]), from the pixels themselves ([`raw_pixels`],
//! the baseline that every representation has to beat) or from anywhere else. Every result carries
//! its whole [`Protocol`]. [`report`] makes a page about runs from the folders that they left behind.
//!
//! ```
//! use eqco_eval::{FeaturePair, Features, KnnConfig, LinearProbeConfig, Origin, knn, linear_probe};
//!
//! # fn main() -> Result<(), eqco_eval::EvalError> {
//! // Two classes on either side of a line; the second number says nothing about the class.
//! let part = |split: &str, count: u32| {
//!     let origin = Origin::new("two lines", split, "coordinates");
//!     let labels: Vec<u32> = (0..count).map(|i| i % 2).collect();
//!     let rows = (0..count).flat_map(|i| [(i % 2) as f32 - 0.5, (i / 2) as f32 / count as f32]);
//!     Features::new(origin, rows.collect(), 2, labels, 2)
//! };
//! let features = FeaturePair::new(part("train", 200)?, part("test", 50)?)?;
//!
//! let neighbours = knn(&features, &KnnConfig { neighbours: 5, temperature: 0.07 })?;
//! let linear = linear_probe(&features, &LinearProbeConfig::default())?;
//! assert_eq!((neighbours.accuracy.top1, linear.accuracy.top1), (100.0, 100.0));
//! assert_eq!(linear.protocol.train.count, 200);
//! # Ok(())
//! # }
//! ```

mod accuracy;
mod checkpoint_path;
mod comparison;
mod contrast;
mod error;
mod feature_pair;
mod features;
mod geometry;
mod images;
mod in_memory;
mod knn;
mod linear_probe;
mod nearest;
mod picture_grid;
mod product;
mod protocol;
mod raw_pixels;
pub mod report;
mod representation;
mod table;

pub use accuracy::Accuracy;
pub use checkpoint_path::find_checkpoint;
pub use comparison::{Comparison, ComparisonTable, EvalConfig, Evaluation, Top1, compare};
pub use contrast::{AtCount, ContrastConfig, ContrastResult, contrast};
pub use error::EvalError;
pub use feature_pair::FeaturePair;
pub use features::{Features, Origin};
pub use geometry::Geometry;
pub use images::EvalImages;
pub use knn::{KnnConfig, KnnResult, knn, knn_predictions};
pub use linear_probe::{GridPoint, GridScore, LinearProbeConfig, LinearProbeResult, linear_probe};
pub use nearest::{Neighbour, nearest_rows};
pub use picture_grid::{GridGeometry, PictureGrid, encode_png, picture_grid};
pub use protocol::{Protocol, Sample};
pub use raw_pixels::raw_pixels;
pub use representation::{Representation, encoder_sha256, represent};
pub use table::ResultTable;
