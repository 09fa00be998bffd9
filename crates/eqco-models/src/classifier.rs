//! A backbone with a linear classifier on its representation: what supervised training optimises.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};

use crate::backend::Backend;
use crate::buffer::BufferPool;
use crate::encoder::{CHECKPOINT_PREFIX, Encoder};
use crate::normalization::Normalization;
use crate::ops::cross_entropy::cross_entropy;
use crate::ops::lanes::on_pool;
use crate::ops::linear::linear;
use crate::params::{Parameter, ParameterBuilder, ParameterSet};
use crate::precision::Precision;
use crate::resnet::{EncoderConfig, ResNet};
use crate::tape::{Activation, Gradients, Mode, Tape};

/// Stands before the names of the linear layer's tensors, also in a checkpoint.
const LAYER_PREFIX: &str = "classifier.";

/// A backbone f and a linear layer: images to representations to one logit a class, in f32.
#[derive(Clone, Debug)]
pub struct Classifier {
    backbone: ResNet,
    weight: Parameter,
    bias: Parameter,
    normalization: Normalization,
    backend: Backend,
    parameters: ParameterSet,
    pool: Arc<BufferPool>,
    device: Device,
}

impl Classifier {
    /// A classifier of `class_count` classes whose backbone is at the initialisation that an [`Encoder`] of the same seed
    /// has, and whose linear layer is zero: every class begins equally likely. It computes with the portable kernels.
    ///
    /// # Errors
    /// When the configuration is out of range, there is no class, or the device cannot allocate.
    pub fn new(
        encoder: &EncoderConfig,
        normalization: Normalization,
        class_count: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let mut builder = ParameterBuilder::new(seed, device);
        let backbone = builder.scope("backbone", |b| ResNet::new(encoder, b))?;
        let (weight, bias) = builder.scope("classifier", |b| {
            b.zero_linear(class_count, encoder.representation_dim())
        })?;
        Ok(Self {
            backbone,
            weight,
            bias,
            normalization,
            backend: Backend::Portable,
            parameters: builder.finish(),
            pool: BufferPool::new(device),
            device: device.clone(),
        })
    }

    /// The same classifier, with the same parameters, computed by the kernels of `backend`, which must run on its device.
    #[must_use]
    pub fn with_backend(mut self, backend: &Backend) -> Self {
        self.backend = backend.clone();
        self
    }

    /// A classifier that starts from a copy of an encoder's backbone, running statistics included, with a zero linear layer. It
    /// is on the encoder's device and computes with the encoder's kernels.
    ///
    /// # Errors
    /// When there is no class or the device cannot allocate.
    pub fn on_encoder(encoder: &Encoder, class_count: usize) -> Result<Self> {
        let (config, normalization) = (encoder.config(), encoder.normalization());
        let fresh = Self::new(config, normalization, class_count, 0, encoder.device())?
            .with_backend(encoder.backend());
        let mut tensors: HashMap<String, Tensor> =
            encoder.parameters().to_named()?.into_iter().collect();
        let layer = fresh.parameters.to_named()?;
        tensors.extend(
            layer
                .into_iter()
                .filter(|(name, _)| name.starts_with(LAYER_PREFIX)),
        );
        fresh.parameters.load_named("", &tensors)?;
        Ok(fresh)
    }

    /// All parameters and buffers, `backbone.*` before `classifier.*`.
    pub fn parameters(&self) -> &ParameterSet {
        &self.parameters
    }

    /// What computes.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Number of classes.
    pub fn class_count(&self) -> usize {
        self.bias.value().elem_count()
    }

    /// All parameters and buffers under the names that they have in a checkpoint: the backbone's as an encoder's, the linear
    /// layer's as `classifier.weight` and `classifier.bias`.
    ///
    /// # Errors
    /// When a copy fails.
    pub fn to_checkpoint(&self) -> Result<Vec<(String, Tensor)>> {
        let named = self.parameters.to_named()?.into_iter();
        Ok(named
            .map(|(name, tensor)| match name.starts_with(LAYER_PREFIX) {
                true => (name, tensor),
                false => (format!("{CHECKPOINT_PREFIX}{name}"), tensor),
            })
            .collect())
    }

    /// Mean cross-entropy in nats of u8 images `[N,S,S,3]` with their labels, in training mode (batch statistics; running
    /// statistics move), and the gradient of every parameter.
    ///
    /// # Errors
    /// When the number of bytes does not fit the image size, or labels do not fit images and classes.
    pub fn differentiate(
        &self,
        pixels: &[u8],
        image_size: usize,
        labels: &[u32],
        gradients: &mut Gradients,
    ) -> Result<f64> {
        let mut tape = self.tape(Mode::Training);
        let logits = self.logits(&mut tape, pixels, image_size)?;
        let loss = cross_entropy(&mut tape, &logits, labels)?;
        let one = Tensor::ones(1, loss.dtype(), &self.device)?;
        let value = loss.to_tensor()?.to_vec1::<f32>()?;
        tape.backward(&loss, &one, gradients, &[])?;
        match value[..] {
            [value] => Ok(f64::from(value)),
            _ => bail!("cross_entropy: expected one value, found {}", value.len()),
        }
    }

    /// Logits `[N,classes]`, f32, of u8 images `[N,S,S,3]`, with running statistics; changes nothing.
    ///
    /// # Errors
    /// When the number of bytes does not fit the image size.
    pub fn classify(&self, pixels: &[u8], image_size: usize) -> Result<Tensor> {
        let mut tape = self.tape(Mode::Evaluation);
        self.logits(&mut tape, pixels, image_size)?.to_tensor()
    }

    fn tape(&self, mode: Mode) -> Tape {
        Tape::new(mode, &self.pool).with_backend(&self.backend)
    }

    fn logits(&self, tape: &mut Tape, pixels: &[u8], image_size: usize) -> Result<Activation> {
        let images = self.normalization.upload(
            pixels,
            image_size,
            Precision::F32,
            &self.device,
            &self.backend,
        )?;
        on_pool(|| {
            let images = Activation::constant(&images)?;
            let representation = self.backbone.forward(tape, &images)?;
            linear(tape, &representation, &self.weight, Some(&self.bias))
        })
    }
}
