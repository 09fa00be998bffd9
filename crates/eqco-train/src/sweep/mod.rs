//! Many runs that differ in some settings alone: `eqco-train sweep`.
//!
//! ```text
//! runs/k-sweep/
//!   table.csv                              one line a run: what was varied, state, results
//!   negatives-4_alpha-256_seed-0/          a run folder like any other
//!   negatives-4_alpha-infonce_seed-0/
//!   logs/negatives-4_alpha-256_seed-0.log  what the run said
//!   interrupted/                           runs that were stopped half-way, moved aside
//! ```
//!
//! Every run is a process of its own, so that one that fails takes no other with it. All settings but the varied ones
//! and the seed are the same for all runs; in particular the learning rate follows the size of the batch as the
//! schedule says, and nothing else.

mod axis;
mod error;
mod estimate;
mod launch;
mod outcome;
mod point;
mod side_by_side;
mod state;
mod table;

pub use axis::Axis;
pub use error::SweepError;
pub use estimate::{Estimate, estimate};
pub use launch::{Finished, Launcher, Running};
pub use outcome::Outcome;
pub use point::{Grid, Point};
pub use side_by_side::{Event, SideBySide};
pub use state::RunState;
pub use table::{Stage, summary, write_table};
