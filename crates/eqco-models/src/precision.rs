//! The number format of activations.

#[cfg(test)]
mod tests;

use candle_core::DType;
use serde::{Deserialize, Serialize};

/// What a backbone computes in: the activations between the upload of the images and the global average pool, and their
/// gradients. Parameters and their gradients, statistics, the projection head, the loss and the optimiser are f32 in any
/// case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// bfloat16: f32's range with 8 significant bits. Halves the memory of activations and the traffic of every pass over
    /// them; no scaling of the loss is needed.
    Bf16,
}

impl Precision {
    /// The tensor type of activations.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}
