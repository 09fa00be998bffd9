//! Image encoders for contrastive pre-training, and everything else that has weights.

pub mod buffer;
pub mod encoder;
pub mod normalization;
pub mod ops;
pub mod params;
pub mod projection_head;
pub mod resnet;
pub mod tape;

pub use encoder::Encoder;
pub use normalization::Normalization;
pub use projection_head::{HeadKind, ProjectionHeadConfig};
pub use resnet::{Architecture, EncoderConfig, ResNet, Stem};
