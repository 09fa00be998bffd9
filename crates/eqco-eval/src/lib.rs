//! Evaluation of image representations: weighted nearest neighbours, the linear probe, and training with labels that starts
//! from them.
//!
//! Everything starts from [`Features`]: one row of numbers per image with its label, cached in
//! memory. They come from an encoder ([`represent`]), from the pixels themselves ([`raw_pixels`],
//! the baseline that every representation has to beat) or from anywhere else. Every result carries
//! its whole [`Protocol`]. [`report`] makes a page about runs from the folders that they left behind.
//!
//! An encoder on a GPU computes there. Its rows are brought to host memory, where nearest neighbours and the linear probe work on
//! them as on any others.
//!
//! [`train_supervised`] starts from images instead and trains the whole network; [`image_rows`] gives what an encoder says
//! about any images, labelled or not, and [`FeatureFile`] hands it to other programs.
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
mod feature_file;
mod feature_pair;
mod features;
mod geometry;
mod image_rows;
mod images;
mod in_memory;
mod knn;
mod label_share;
mod linear_probe;
mod neighbours;
mod order;
mod picture_grid;
mod product;
mod protocol;
mod raw_pixels;
pub mod report;
mod representation;
mod supervised;
mod table;
mod whole_file;

pub use accuracy::Accuracy;
pub use checkpoint_path::find_checkpoint;
pub use comparison::{Comparison, ComparisonTable, EvalConfig, Evaluation, Top1, compare};
pub use contrast::{AtCount, ContrastConfig, ContrastResult, contrast};
pub use error::EvalError;
pub use feature_file::{FeatureFile, FeatureFormat};
pub use feature_pair::FeaturePair;
pub use features::{Features, Origin};
pub use geometry::Geometry;
pub use image_rows::{EncoderOutput, ImageRows, image_rows};
pub use images::{EvalImages, View};
pub use knn::{KnnConfig, KnnResult, knn, knn_predictions};
pub use label_share::{check_share, label_share};
pub use linear_probe::{GridPoint, GridScore, LinearProbeConfig, LinearProbeResult, linear_probe};
pub use neighbours::{Neighbour, nearest_neighbours};
pub use picture_grid::{GridGeometry, Tile, picture_grid};
pub use protocol::{Protocol, Sample};
pub use raw_pixels::raw_pixels;
pub use representation::{Representation, encoder_sha256, represent};
pub use supervised::{
    Plan, SupervisedConfig, SupervisedEpoch, SupervisedProgress, SupervisedResult, train_supervised,
};
pub use table::ResultTable;
pub use whole_file::WholeFile;
