//! Image encoders for contrastive pre-training, and everything else that has weights.

pub mod augment;
pub mod backend;
pub mod buffer;
pub mod candle_bridge;
pub mod checkpoint;
pub mod classifier;
pub mod cuda;
pub mod device;
pub mod encoder;
pub mod error;
pub mod gradient_norms;
pub mod group;
mod huge_pages;
pub mod key_queue;
pub mod method;
pub mod momentum_encoder;
pub mod normalization;
pub mod onednn;
pub mod ops;
pub mod optim;
pub mod params;
pub mod precision;
pub mod profile;
pub mod projection_head;
pub mod resnet;
mod saved_state;
pub mod tape;

pub use classifier::Classifier;
pub use device::DeviceName;
pub use encoder::Encoder;
pub use gradient_norms::{GradientNorms, total_norm};
pub use group::ProcessGroup;
pub use normalization::Normalization;
pub use precision::Precision;
pub use projection_head::{HeadKind, ProjectionHeadConfig};
pub use resnet::{Architecture, EncoderConfig, ResNet, Stem};
