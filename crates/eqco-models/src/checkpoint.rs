//! Checkpoints: a safetensors file that holds all tensors of a run by name, and what is needed to use them.
//!
//! **A checkpoint is complete or absent.** It is written to `.NAME.partial` beside its destination, synchronised to the
//! disk and only then renamed over the old file, so a run that is killed at any moment leaves the old file or the new one.
//! What a disk or a copy does to it later shows: a checksum over every byte of the file is compared at each reading.
//!
//! The metadata is one JSON text under the key [`METADATA_KEY`] of safetensors' own metadata:
//! `{"format_version": 2, "crc32c": "0123abcd", "checkpoint": {...}}`, the inner object being [`CheckpointMetadata`]. The
//! checksum is CRC-32C of the whole file with the eight digits of the checksum itself as zeros. Version 1 had neither it nor
//! [`CheckpointMetadata::progress`]; it is read, too.

mod checksum;
mod finite;
mod read;
mod write;

use std::path::Path;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::normalization::Normalization;
use crate::projection_head::ProjectionHeadConfig;
use crate::resnet::EncoderConfig;

pub use finite::is_finite;
pub use read::load;
pub use write::save;

/// Version of the metadata that this build writes; it reads this one and all before it.
pub const FORMAT_VERSION: u64 = 2;

/// Where safetensors' metadata holds ours.
pub const METADATA_KEY: &str = "eqco";

const LENGTH_BYTES: u64 = 8;
const STORABLE: &str = "elements of u8, i16, i32, i64, u32, f16, bf16, f32 or f64";
const NOT_OURS: &str = "give a checkpoint that eqco-train has written";
const PICKLE: &str = "a pickle can run any program while it is read, so none is ever opened; in Python, where it came from, its \
    tensors become safetensors by: python3 -c \"import sys, torch; from safetensors.torch import save_file; d = \
    torch.load(sys.argv[1], map_location='cpu', weights_only=True); d = d.get('state_dict', d); save_file({k: \
    v.contiguous() for k, v in d.items()}, sys.argv[2])\" IN.pth OUT.safetensors";
const DAMAGED: &str =
    "the file is damaged or incomplete: copy it again, or use an earlier checkpoint of the run";

/// What a reader needs beside the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointMetadata {
    /// The backbone.
    pub encoder: EncoderConfig,
    /// The projection head.
    pub projection_head: ProjectionHeadConfig,
    /// How input images are normalised.
    pub normalization: Normalization,
    /// Side in pixels of the square images that the encoder is meant to see after training.
    pub image_size: usize,
    /// The resolved training configuration, in the form of whoever trained.
    pub training: serde_json::Value,
    /// Optimiser steps taken.
    pub step: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Revision of the program that wrote the checkpoint.
    pub commit: String,
    /// Where the loop around the steps stands, in the form of whoever trained; null where training cannot go on from here.
    #[serde(default)]
    pub progress: serde_json::Value,
}

/// A checkpoint in memory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What the tensors belong to.
    pub metadata: CheckpointMetadata,
    /// All tensors by full name. A file keeps their order among tensors of equally wide elements, widest first.
    pub tensors: Vec<(String, Tensor)>,
}

/// Whether elements take whole bytes and candle computes with them.
fn is_storable(dtype: DType) -> bool {
    !matches!(
        dtype,
        DType::F8E4M3 | DType::F6E2M3 | DType::F6E3M2 | DType::F4 | DType::F8E8M0
    )
}

fn refuse(
    path: &Path,
    expected: impl Into<String>,
    found: impl Into<String>,
    next: &'static str,
) -> ModelError {
    ModelError::Checkpoint {
        path: path.into(),
        expected: expected.into(),
        found: found.into(),
        next,
    }
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> ModelError {
    let path = path.to_path_buf();
    move |source| ModelError::CheckpointIo {
        path,
        action,
        source,
    }
}

#[cfg(test)]
mod tests;
