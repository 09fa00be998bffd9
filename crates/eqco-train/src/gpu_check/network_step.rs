//! One training step of ResNet-50 with a head: forward, backward, SGD. The loss is the mean squared error to a fixed target, so
//! that the network alone counts, as in `python/train_step_torch.py`.

use anyhow::Result;
use candle_core::{DType, Tensor};
use eqco_models::optim::{Optimizer, OptimizerConfig, SgdConfig};
use eqco_models::tape::{Gradients, Mode};
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, Precision, ProjectionHeadConfig,
};

use super::kernels::Place;
use super::random::Draw;
use super::speed::Scale;

const EMBEDDING_DIM: usize = 128;
const LEARNING_RATE: f64 = 0.01;

/// A network under training, in bf16.
pub(super) struct NetworkStep {
    pub(super) encoder: Encoder,
    pub(super) optimizer: Optimizer,
    pub(super) gradients: Gradients,
    images: Tensor,
    target: Tensor,
}

impl NetworkStep {
    /// ResNet-50, or a narrow ResNet-18 at the tiny scale, with so many images of so many pixels, which are uploaded here.
    pub(super) fn new(place: Place<'_>, scale: Scale, [images, side]: [usize; 2]) -> Result<Self> {
        let config = match scale {
            Scale::Full => EncoderConfig::imagenet(Architecture::Resnet50),
            Scale::Tiny => EncoderConfig {
                width: 4,
                ..EncoderConfig::imagenet(Architecture::Resnet18)
            },
        };
        let head = ProjectionHeadConfig {
            kind: HeadKind::Mlp,
            hidden_dim: 0,
            embedding_dim: EMBEDDING_DIM,
        };
        let encoder = Encoder::new(&config, &head, Normalization::IMAGENET, 0, place.device)?
            .with_backend(place.backend.clone())
            .with_precision(Precision::Bf16);
        let parameters = encoder.parameters();
        let config = OptimizerConfig::Sgd(SgdConfig::default());
        let optimizer = Optimizer::new(&config, parameters)?.with_backend(place.backend);
        let gradients = Gradients::new(parameters)?;
        let pixels = Draw::new(0, "pixels").bytes(images * side * side * 3);
        let images_on_device = encoder.upload(&pixels, side)?;
        let target = Tensor::zeros((images, EMBEDDING_DIM), DType::F32, place.device)?;
        Ok(Self {
            encoder,
            optimizer,
            gradients,
            images: images_on_device,
            target,
        })
    }

    pub(super) fn step(&mut self) -> Result<()> {
        self.gradients.reset();
        let mut tape = self.encoder.tape(Mode::Training);
        let embedding = self.encoder.embed(&mut tape, &self.images)?;
        let mean = 2.0 / self.target.elem_count() as f64;
        let gradient = ((embedding.to_tensor()? - &self.target)? * mean)?;
        tape.backward(&embedding, &gradient, &mut self.gradients, &[])?;
        let parameters = self.encoder.parameters();
        self.optimizer
            .step(parameters, &self.gradients, LEARNING_RATE)?;
        Ok(())
    }
}
