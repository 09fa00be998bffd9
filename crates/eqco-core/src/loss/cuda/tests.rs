//! The kernels in the emulator against the loss on the CPU and in float64.

mod compare;
mod drawn;
mod graph;
pub(super) mod guard;
mod inputs;
mod nt_xent;
mod reference;
mod shared;
