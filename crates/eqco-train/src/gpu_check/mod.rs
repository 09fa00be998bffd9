//! A GPU against the CPU: every kernel, whole steps, curves of training, and how fast they are.
//!
//! `eqco-train gpu-check` is what is carried to a machine with a GPU; the tests run the same comparisons with CUDA's kernels in
//! the emulator. Parts of the check ([`Part`]) run in processes of their own and give an [`Outcome`] each.

pub mod curves;
mod distance;
pub mod facts;
pub mod kernels;
mod lockstep;
pub mod memory;
mod network_step;
mod outcome;
mod part;
mod pictures;
mod poison;
mod problem;
pub mod process;
pub mod pytorch;
mod random;
mod report;
mod run_part;
pub mod speed;
mod targets;
mod views;
mod workload;

pub use distance::distance;
pub use lockstep::{Agreement, compare, compare_roundings};
pub use outcome::{Check, Measurement, Outcome, PeerComparison, Work};
pub use part::{Part, Workload};
pub use pictures::{Pictures, picture};
pub use problem::Problem;
pub use report::{PartReport, Report};
pub use run_part::{Options, check_kernel, run_part};
pub use targets::{Target, Wanted};
pub use views::loaders;
