//! Residual networks (He et al., 2016) under torchvision's names, channels-last.

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::ops::average_pool::global_average_pool;
use crate::ops::batch_norm::{Activate, BatchNorm};
use crate::ops::conv2d::conv2d;
use crate::ops::lanes::on_pool;
use crate::ops::max_pool::max_pool;
use crate::params::{Parameter, ParameterBuilder};
use crate::tape::{Activation, Tape};

/// Depth and block type, as in torchvision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Basic blocks 2, 2, 2, 2.
    Resnet18,
    /// Basic blocks 3, 4, 6, 3.
    Resnet34,
    /// Bottlenecks 3, 4, 6, 3, with the stride on the 3x3 convolution ("v1.5").
    Resnet50,
    /// Bottlenecks 3, 4, 23, 3.
    Resnet101,
}

impl Architecture {
    fn blocks_per_stage(self) -> [usize; 4] {
        match self {
            Self::Resnet18 => [2, 2, 2, 2],
            Self::Resnet34 | Self::Resnet50 => [3, 4, 6, 3],
            Self::Resnet101 => [3, 4, 23, 3],
        }
    }

    fn is_bottleneck(self) -> bool {
        matches!(self, Self::Resnet50 | Self::Resnet101)
    }

    /// Channels that leave a block, in units of the block's own width.
    fn expansion(self) -> usize {
        if self.is_bottleneck() { 4 } else { 1 }
    }
}

/// The first layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// 7x7 convolution with stride 2, then 3x3 max-pooling with stride 2.
    Imagenet,
    /// 3x3 convolution with stride 1, no pooling: for images of about 32 pixels.
    Cifar,
}

/// Which backbone to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Depth and block type.
    pub architecture: Architecture,
    /// Channels of the first stage; 64 is torchvision's network. At least 1.
    pub width: usize,
    /// The first layers.
    pub stem: Stem,
    /// Starts the last normalisation of every block at scale 0, so that blocks begin as identities (Goyal et al., 2017).
    pub zero_init_residual: bool,
}

impl EncoderConfig {
    /// torchvision's network with the ImageNet stem.
    pub fn imagenet(architecture: Architecture) -> Self {
        Self {
            architecture,
            width: 64,
            stem: Stem::Imagenet,
            zero_init_residual: false,
        }
    }

    /// The network of `width` with the stem for small images.
    pub const fn cifar(architecture: Architecture, width: usize) -> Self {
        Self {
            architecture,
            width,
            stem: Stem::Cifar,
            zero_init_residual: false,
        }
    }

    /// Number of channels of the representation.
    pub fn representation_dim(&self) -> usize {
        8 * self.width * self.architecture.expansion()
    }
}

/// A ResNet up to and including the global average pool.
#[derive(Clone, Debug)]
pub struct ResNet {
    config: EncoderConfig,
    stem: ConvNorm,
    blocks: Vec<Block>,
}

impl ResNet {
    /// Declares all parameters in torchvision's order.
    ///
    /// # Errors
    /// When the width is 0 or the device cannot allocate.
    pub fn new(config: &EncoderConfig, builder: &mut ParameterBuilder) -> Result<Self> {
        if config.width == 0 {
            bail!("encoder width: expected at least 1, found 0");
        }
        let (kernel, stride) = match config.stem {
            Stem::Imagenet => (7, 2),
            Stem::Cifar => (3, 1),
        };
        let stem = ConvNorm::new(
            builder,
            ("conv1", "bn1"),
            Shape {
                input: 3,
                out: config.width,
                kernel,
                stride,
            },
            1.0,
        )?;
        let mut channels = config.width;
        let mut blocks = Vec::new();
        for (stage, count) in config
            .architecture
            .blocks_per_stage()
            .into_iter()
            .enumerate()
        {
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = format!("layer{}.{index}", stage + 1);
                let width = config.width << stage;
                let block =
                    builder.scope(&name, |b| Block::new(config, b, channels, width, stride))?;
                channels = width * config.architecture.expansion();
                blocks.push(block);
            }
        }
        Ok(Self {
            config: *config,
            stem,
            blocks,
        })
    }

    /// What was built.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Maps normalised images `[N,H,W,3]` to representations `[N,C]`.
    ///
    /// # Errors
    /// When the images are too small, not of three channels, or not in the precision of the tape.
    pub fn forward(&self, tape: &mut Tape, images: &Activation) -> Result<Activation> {
        let expected = tape.precision().dtype();
        if images.dtype() != expected {
            bail!("images: expected {expected:?}, found {:?}", images.dtype());
        }
        on_pool(|| {
            let mut x = self.stem.forward(tape, images, None, Activate::Relu)?;
            if self.config.stem == Stem::Imagenet {
                x = max_pool(tape, &x)?;
            }
            for block in &self.blocks {
                x = block.forward(tape, &x)?;
            }
            global_average_pool(tape, &x)
        })
    }
}

/// Sizes of one convolution; padding is half the kernel.
#[derive(Clone, Copy)]
struct Shape {
    input: usize,
    out: usize,
    kernel: usize,
    stride: usize,
}

/// A convolution and the normalisation behind it.
#[derive(Clone, Debug)]
struct ConvNorm {
    weight: Parameter,
    norm: BatchNorm,
    stride: usize,
    padding: usize,
}

impl ConvNorm {
    fn new(
        builder: &mut ParameterBuilder,
        (conv, norm): (&str, &str),
        shape: Shape,
        scale: f32,
    ) -> Result<Self> {
        let weight = builder.scope(conv, |b| {
            b.conv_weight("weight", shape.out, shape.input, shape.kernel)
        })?;
        let norm = BatchNorm::new(builder, norm, shape.out, scale)?;
        Ok(Self {
            weight,
            norm,
            stride: shape.stride,
            padding: shape.kernel / 2,
        })
    }

    fn forward(
        &self,
        tape: &mut Tape,
        input: &Activation,
        residual: Option<&Activation>,
        activate: Activate,
    ) -> Result<Activation> {
        let convolved = conv2d(tape, input, &self.weight, self.stride, self.padding)?;
        self.norm.forward(tape, &convolved, residual, activate)
    }
}

/// A basic block (two convolutions) or a bottleneck (three), with a projection where shapes change.
#[derive(Clone, Debug)]
struct Block {
    convolutions: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Block {
    fn new(
        config: &EncoderConfig,
        builder: &mut ParameterBuilder,
        input: usize,
        width: usize,
        stride: usize,
    ) -> Result<Self> {
        let out = width * config.architecture.expansion();
        let shapes = if config.architecture.is_bottleneck() {
            vec![
                Shape {
                    input,
                    out: width,
                    kernel: 1,
                    stride: 1,
                },
                Shape {
                    input: width,
                    out: width,
                    kernel: 3,
                    stride,
                },
                Shape {
                    input: width,
                    out,
                    kernel: 1,
                    stride: 1,
                },
            ]
        } else {
            vec![
                Shape {
                    input,
                    out: width,
                    kernel: 3,
                    stride,
                },
                Shape {
                    input: width,
                    out,
                    kernel: 3,
                    stride: 1,
                },
            ]
        };
        let last = shapes.len() - 1;
        let mut convolutions = Vec::new();
        for (index, shape) in shapes.into_iter().enumerate() {
            let scale = if index == last && config.zero_init_residual {
                0.0
            } else {
                1.0
            };
            let names = (format!("conv{}", index + 1), format!("bn{}", index + 1));
            convolutions.push(ConvNorm::new(builder, (&names.0, &names.1), shape, scale)?);
        }
        let downsample = if stride != 1 || input != out {
            let shape = Shape {
                input,
                out,
                kernel: 1,
                stride,
            };
            Some(builder.scope("downsample", |b| ConvNorm::new(b, ("0", "1"), shape, 1.0))?)
        } else {
            None
        };
        Ok(Self {
            convolutions,
            downsample,
        })
    }

    fn forward(&self, tape: &mut Tape, input: &Activation) -> Result<Activation> {
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(tape, input, None, Activate::Linear)?,
            None => input.clone(),
        };
        let last = self.convolutions.len() - 1;
        let mut x = input.clone();
        for convolution in &self.convolutions[..last] {
            x = convolution.forward(tape, &x, None, Activate::Relu)?;
        }
        self.convolutions[last].forward(tape, &x, Some(&shortcut), Activate::Relu)
    }
}
