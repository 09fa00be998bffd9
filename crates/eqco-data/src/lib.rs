//! Image data sets, two-view augmentation and a deterministic loader.
//!
//! Bytes go in (files, or the set that is compiled into the crate), batches of 8-bit RGB views
//! come out, `[N, S, S, 3]`, in host memory. There are no tensors here and no normalisation: that
//! happens where the batch is uploaded.
//!
//! ```
//! use std::sync::Arc;
//! use eqco_data::loader::{Loader, LoaderConfig};
//! use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
//! use eqco_data::{Split, open};
//!
//! # fn main() -> Result<(), eqco_data::DataError> {
//! let dataset = open("embedded", Split::Train)?;
//! assert_eq!((dataset.len(), dataset.class_names().len()), (10_000, 10));
//!
//! let recipe = Recipe::new(RecipeConfig::new(RecipeName::Fashion, 28))?;
//! let views = vec![recipe.clone(), recipe];
//! let config = LoaderConfig { batch_size: 64, workers: 2, seed: 1, ..Default::default() };
//! let loader = Loader::new(Arc::clone(&dataset), views, config)?;
//!
//! let batch = loader.epoch(0, 0).next().expect("an epoch has batches")?;
//! let [query_view, key_view] = batch.views()? else { unreachable!() };
//! assert_eq!(query_view.len(), 64 * 28 * 28 * 3);
//! assert_ne!(query_view, key_view);
//! # Ok(())
//! # }
//! ```

pub mod augment;
mod cursor;
pub mod dataset;
pub mod decode;
pub mod encode;
mod error;
#[cfg(feature = "hub")]
pub mod hub;
mod image;
mod image_header;
mod lanes;
pub mod loader;
mod random;
pub mod recipe;
#[cfg(feature = "remote")]
pub mod remote;
mod view_plan;

pub use cursor::Cursor;
pub use dataset::{Dataset, Format, Split, known_names, limited, open, open_as, subset};
pub use error::DataError;
pub use image::Image;
pub use image_header::ImageHeader;
pub use view_plan::ViewPlan;
