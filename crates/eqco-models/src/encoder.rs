//! Backbone and projection head together: what contrastive training optimises.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};

use crate::augment::{self, Output, SourceImages, View};
use crate::backend::Backend;
use crate::buffer::BufferPool;
use crate::checkpoint::Checkpoint;
use crate::normalization::Normalization;
use crate::ops::lanes::on_pool;
use crate::ops::normalize::l2_normalize;
use crate::params::{ParameterBuilder, ParameterSet};
use crate::precision::Precision;
use crate::profile::{Phase, Profiler, Work};
use crate::projection_head::{ProjectionHead, ProjectionHeadConfig};
use crate::resnet::{EncoderConfig, ResNet};
use crate::tape::{Activation, Mode, Tape};

/// Stands before the names of the query encoder's tensors in a checkpoint.
pub const CHECKPOINT_PREFIX: &str = "encoder.";

/// A backbone f with its projection head g: images to representations to unit-length embeddings.
#[derive(Clone, Debug)]
pub struct Encoder {
    backbone: ResNet,
    projection_head: ProjectionHead,
    head_config: ProjectionHeadConfig,
    normalization: Normalization,
    backend: Backend,
    winograd: bool,
    precision: Precision,
    parameters: ParameterSet,
    pool: Arc<BufferPool>,
    profiler: Profiler,
    device: Device,
}

impl Encoder {
    /// An encoder at initialisation, which computes in f32 with the portable kernels. Values depend on `seed` and parameter names alone.
    ///
    /// # Errors
    /// When a configuration is out of range or the device cannot allocate.
    pub fn new(
        encoder: &EncoderConfig,
        head: &ProjectionHeadConfig,
        normalization: Normalization,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let mut builder = ParameterBuilder::new(seed, device);
        let backbone = builder.scope("backbone", |b| ResNet::new(encoder, b))?;
        let projection_head = builder.scope("projection_head", |b| {
            ProjectionHead::new(head, encoder.representation_dim(), b)
        })?;
        let pool = BufferPool::new(device);
        let parameters = builder.finish();
        let device = device.clone();
        Ok(Self {
            backbone,
            projection_head,
            head_config: *head,
            normalization,
            backend: Backend::Portable,
            winograd: true,
            precision: Precision::F32,
            parameters,
            pool,
            profiler: Profiler::off(),
            device,
        })
    }

    /// The same encoder, with the same parameters, with its convolutions computed by the kernels of `backend`.
    #[must_use]
    pub fn with_backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// The same encoder, with the same parameters, with or without Winograd's transform in its 3x3 convolutions of stride
    /// 1: faster, with an error of up to 3e-6 of the largest output for 272 channels, where direct sums have 1e-6.
    #[must_use]
    pub fn with_winograd(mut self, allowed: bool) -> Self {
        self.winograd = allowed;
        self
    }

    /// The same encoder, with the same parameters, with its backbone computed in `precision`.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The query encoder of a checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than the checkpoint's own configuration says.
    pub fn from_checkpoint(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        let metadata = &checkpoint.metadata;
        let encoder = Self::new(
            &metadata.encoder,
            &metadata.projection_head,
            metadata.normalization,
            0,
            device,
        )?;
        let tensors = checkpoint.tensors.iter().cloned().collect();
        encoder.load_named(CHECKPOINT_PREFIX, &tensors)?;
        Ok(encoder)
    }

    /// All parameters and buffers under the names that they have in a checkpoint.
    ///
    /// # Errors
    /// When a copy fails.
    pub fn to_checkpoint(&self) -> Result<Vec<(String, Tensor)>> {
        let named = self.parameters.to_named()?;
        Ok(named
            .into_iter()
            .map(|(name, tensor)| (format!("{CHECKPOINT_PREFIX}{name}"), tensor))
            .collect())
    }

    /// An encoder of the same architecture with its own copies of all parameters and buffers; recycled memory and the
    /// profiler are shared.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub fn duplicate(&self) -> Result<Self> {
        let mut copy = Self::new(
            self.config(),
            &self.head_config,
            self.normalization,
            0,
            &self.device,
        )?;
        copy.parameters.copy_from(&self.parameters)?;
        copy.backend = self.backend.clone();
        copy.winograd = self.winograd;
        copy.precision = self.precision;
        copy.pool = Arc::clone(&self.pool);
        copy.profiler = self.profiler.clone();
        Ok(copy)
    }

    /// Bytes of memory that passes recycle: activations, and their gradients.
    pub fn recycled_bytes(&self) -> usize {
        self.pool.free_bytes()
    }

    /// Books the time of its operations with `profiler` from now on, which waits for this encoder's device. Duplicates made earlier
    /// keep theirs.
    #[must_use]
    pub fn with_profiler(mut self, profiler: &Profiler) -> Self {
        profiler.wait_for(self.device());
        self.profiler = profiler.clone();
        self
    }

    /// Where the time of its operations is booked.
    pub fn profiler(&self) -> &Profiler {
        &self.profiler
    }

    /// The backbone's configuration.
    pub fn config(&self) -> &EncoderConfig {
        self.backbone.config()
    }
    /// The head's configuration.
    pub fn head_config(&self) -> &ProjectionHeadConfig {
        &self.head_config
    }
    /// How input images are normalised.
    pub fn normalization(&self) -> Normalization {
        self.normalization
    }
    /// What computes the convolutions.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }
    /// What the backbone computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }
    /// All parameters and buffers, `backbone.*` before `projection_head.*`.
    pub fn parameters(&self) -> &ParameterSet {
        &self.parameters
    }
    /// Channels of the representation.
    pub fn representation_dim(&self) -> usize {
        self.config().representation_dim()
    }
    /// Where the parameters live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A forward pass on this encoder's recycled memory.
    pub fn tape(&self, mode: Mode) -> Tape {
        Tape::new(mode, &self.pool)
            .with_backend(&self.backend)
            .with_winograd(self.winograd)
            .with_precision(self.precision)
            .with_profiler(&self.profiler)
    }

    /// Uploads and normalises u8 images `[N,S,S,3]` to `[N,S,S,3]` in this encoder's precision.
    ///
    /// # Errors
    /// When the number of bytes does not fit the image size.
    pub fn upload(&self, pixels: &[u8], image_size: usize) -> Result<Tensor> {
        let bytes = pixels.len() * (1 + self.precision.dtype().size_in_bytes());
        let _span = self
            .profiler
            .span(|| Work::new("upload", Phase::Other).moving(bytes));
        self.normalization.upload(
            pixels,
            image_size,
            self.precision,
            &self.device,
            &self.backend,
        )
    }

    /// Makes views of `images` `[N]` on the GPU, one of each for each of the lists in `views`: normalised, `[N,S,S,3]` in this
    /// encoder's precision, to the bit what [`Encoder::upload`] makes of the same views from the CPU.
    ///
    /// # Errors
    /// When the encoder does not compute with CUDA's kernels, there is another number of views than of images, a crop does
    /// not lie inside its image, or a number is out of its range.
    pub fn augment(
        &self,
        images: &SourceImages<'_>,
        views: &[&[View]],
        image_size: usize,
    ) -> Result<Vec<Tensor>> {
        let Some(cuda) = self.backend.cuda() else {
            bail!(
                "expected CUDA's kernels to make views with, found {}: have the loader finish the views",
                self.backend
            );
        };
        let values = views.len() * images.len() * image_size * image_size * 3;
        let _span = self.profiler.span(|| {
            Work::new("augment", Phase::Other)
                .moving(values * self.precision.dtype().size_in_bytes())
        });
        let output = Output {
            image_size,
            normalization: &self.normalization,
            precision: self.precision,
            pool: &self.pool,
        };
        augment::augment(cuda, images, views, &output, &self.device)
    }

    /// Embeddings `[N,D]`, f32, of unit length of normalised images `[N,S,S,3]` as [`Encoder::upload`] gives them.
    ///
    /// # Errors
    /// When shapes do not fit, or the images are not in this encoder's precision.
    pub fn embed(&self, tape: &mut Tape, images: &Tensor) -> Result<Activation> {
        on_pool(|| {
            let representation = self
                .backbone
                .forward(tape, &Activation::constant(images)?)?;
            let embedding = self.projection_head.forward(tape, &representation)?;
            l2_normalize(tape, &embedding)
        })
    }

    /// Representations `[N,C]`, f32, of u8 images `[N,S,S,3]`, with running statistics; changes nothing.
    ///
    /// # Errors
    /// When the number of bytes does not fit the image size.
    pub fn represent(&self, pixels: &[u8], image_size: usize) -> Result<Tensor> {
        let images = self.upload(pixels, image_size)?;
        self.backbone
            .forward(
                &mut self.tape(Mode::Evaluation),
                &Activation::constant(&images)?,
            )?
            .to_tensor()
    }

    /// Embeddings `[N,D]`, f32, of unit length, of u8 images `[N,S,S,3]`, with running statistics; changes nothing.
    ///
    /// # Errors
    /// When the number of bytes does not fit the image size.
    pub fn embed_pixels(&self, pixels: &[u8], image_size: usize) -> Result<Tensor> {
        let images = self.upload(pixels, image_size)?;
        self.embed(&mut self.tape(Mode::Evaluation), &images)?
            .to_tensor()
    }

    /// Loads all parameters and buffers by name from behind `prefix`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape; nothing is changed then.
    pub fn load_named(&self, prefix: &str, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.parameters.load_named(prefix, tensors)
    }
}
