//! Self-supervised contrastive pre-training of image encoders.
//!
//! The program `eqco-train` is [`commands`]; everything below it can be used on its own. A run is a
//! [`config::TrainConfig`], resolved from preset < file < flags; a [`step::Trainer`], which holds all state; and the
//! batches of an [`eqco_data::loader::Loader`]. Nothing else influences the weights.
//!
//! ```
//! use eqco_data::{Split, loader::Loader, open, recipe::Recipe};
//! use eqco_train::config::{Resolved, read_assignment};
//! use eqco_train::step::Trainer;
//!
//! # fn main() -> anyhow::Result<()> {
//! let settings = ["encoder.width=4", "data.loader.batch_size=32", "loss.alpha=4096"];
//! let settings = settings.into_iter().map(read_assignment).collect::<Result<_, _>>()?;
//! let config = Resolved::new("demo", None, settings)?.config;
//!
//! let recipe = Recipe::new(config.data.recipe.clone())?;
//! let dataset = open(&config.data.source, Split::Train)?;
//! let loader = Loader::new(dataset, vec![recipe.clone(), recipe], config.data.loader.clone())?;
//! let mut trainer = Trainer::new(&config, loader.batches_per_epoch())?;
//! for batch in loader.epoch(0, 0).take(2) {
//!     let report = trainer.step(&batch?)?;
//!     assert!(report.statistics.wait()?.loss > 0.0);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What a run leaves behind is described in [`run_folder`], the lines of its metrics in [`metrics`].

pub mod checkpoints;
pub mod cli;
pub mod collapse;
pub mod commands;
pub mod config;
pub mod dry_run;
pub mod epoch;
pub mod final_table;
pub mod gpu_check;
pub mod hint;
pub mod history;
pub mod in_order;
pub mod inspect;
pub mod interrupt;
pub mod journal;
pub mod loop_state;
pub mod machine;
pub mod metrics;
pub mod nonfinite;
pub mod online_knn;
pub mod own_keys;
pub mod plan;
pub mod progress;
pub mod ranks;
pub mod resume;
pub mod run;
pub mod run_folder;
pub mod run_path;
pub mod step;
pub mod sweep;
pub mod tensorboard;
pub mod views;
