//! What a GPU may trade for speed.

use serde::{Deserialize, Serialize};

/// Settings of the CUDA family; of no effect elsewhere. Both are off where they are not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CudaConfig {
    /// Multiplies f32 on tensor cores, with factors rounded to 10 bits (TF32): about eight times as fast on an H100, and with
    /// half of bf16's relative error in every factor (2^-11). Activations and weights stay f32.
    pub tf32: bool,
    /// The same bits in every run on the same GPU with the same libraries: cuDNN's algorithms are taken by its own rule, not
    /// by timing them once, and none that adds in the order of arrival. Our own kernels always add in the same order.
    pub deterministic: bool,
}
