//! What a data set holds, and what training sees of it.
//!
//! [`LabelCounts`] and [`HeaderSample`] are quick whatever the size of the set, [`Scan`] decodes all of it, and
//! [`views_grid`] draws what the first steps of a run are given.

mod labels;
mod report;
mod sample;
mod scan;
mod spread;
mod views_grid;

pub use labels::LabelCounts;
pub use report::{Grid, Report};
pub use sample::HeaderSample;
pub use scan::{BadImage, Scan};
pub use spread::Spread;
pub use views_grid::{DrawnViews, views_grid};
