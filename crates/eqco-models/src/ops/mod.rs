//! Training kernels: one folder or file an operation.
//!
//! `mod.rs` of a folder has the operation on a [`Tape`](crate::tape::Tape) (documentation, checks, dispatch) and
//! `portable.rs` the kernel on plain slices, in Rust for any CPU; small operations are one file. All activations are channels-last and contiguous.
//! Kernels split their work into chunks whose bounds depend on shapes (and, for the convolution's weight gradient, on
//! the number of threads) alone, so results do not depend on scheduling.

pub(crate) mod access;
pub mod average_pool;
pub mod batch_norm;
pub mod conv2d;
pub mod cross_entropy;
pub mod element;
pub mod factor;
pub(crate) mod lanes;
pub mod linear;
pub(crate) mod matmul;
pub mod max_pool;
#[cfg(target_arch = "x86_64")]
pub(crate) mod native_bf16;
pub mod normalize;
pub(crate) mod product;
pub mod relu;
pub(crate) mod scratch;
mod square;
