//! The training kernels and networks against stored float64 PyTorch values, finite differences and their own invariants.
//!
//! Inputs and weights come from a hash that `python/golden_ops.py` shares, so the stored files hold results alone.

mod bf16;
mod classifier;
mod cross_entropy;
mod differentiate;
mod encoder;
mod families;
mod finite_differences;
mod golden;
mod hashed;
mod networks;
mod operations;
mod profile;
mod refusals;
mod reproducible;
mod tape;
