//! A GPU against the CPU: every kernel, whole steps, curves of training, and how fast they are.
//!
//! `eqco-train gpu-check` is what is carried to a machine with a GPU; the tests run the same comparisons with CUDA's kernels in
//! the emulator.

mod distance;
pub mod kernels;
mod lockstep;
mod poison;
mod problem;
mod random;
mod speed;

pub use distance::distance;
pub use lockstep::{Agreement, compare};
pub use problem::Problem;
pub use speed::{Speed, copy_rate, step_rate};
