//! A GPU against the CPU: the same steps on both, and how fast they are on the one.
//!
//! `eqco-train gpu-check` is what is carried to a machine with a GPU; the tests run the same comparison with CUDA's kernels in
//! the emulator.

mod lockstep;
mod pictures;
mod problem;
mod speed;
mod views;

pub use lockstep::{Agreement, compare};
pub use pictures::{Pictures, picture};
pub use problem::Problem;
pub use speed::{Speed, copy_rate, step_rate};
pub use views::{ViewAgreement, compare_views, loaders, view_time};
