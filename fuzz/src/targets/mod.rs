//! One file a target: a function of the input's bytes.

pub mod checkpoint;
pub mod cifar;
pub mod config;
pub mod idx;
pub mod image_file;
pub mod jpeg;
pub mod manifest;
pub mod packed;
pub mod parquet;
pub mod stored_index;
pub mod tar;
pub mod validation_labels;
