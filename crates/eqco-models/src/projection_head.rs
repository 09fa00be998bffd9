//! Projection heads g: representation `[N,C]` to embedding `[N,D]`, before L2 normalisation.

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::ops::batch_norm::{Activate, BatchNorm};
use crate::ops::linear::linear;
use crate::ops::relu::relu;
use crate::params::{Parameter, ParameterBuilder};
use crate::tape::{Activation, Tape};

/// The layers of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// Linear, ReLU, Linear, with biases: MoCo v2.
    Mlp,
    /// Linear, batch norm, ReLU, Linear, batch norm, without biases: SiMo and SimCLR. (SimCLR's code leaves out the
    /// shift of the last normalisation; L2 normalisation follows, so we keep one form.)
    BatchNormMlp,
}

/// Which head to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectionHeadConfig {
    /// The layers.
    pub kind: HeadKind,
    /// Width of the hidden layer; 0 takes the representation's width, as all three papers do.
    pub hidden_dim: usize,
    /// Width of the embedding D; 128 in all three papers.
    pub embedding_dim: usize,
}

/// A two-layer head. Parameters are named as in a `torch.nn.Sequential` (`0.weight`, `2.weight`, ...).
#[derive(Clone, Debug)]
pub struct ProjectionHead {
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
enum Layer {
    Linear(Parameter, Option<Parameter>),
    Norm(BatchNorm, Activate),
    Relu,
}

impl ProjectionHead {
    /// Declares the head on a representation of `input` channels.
    ///
    /// # Errors
    /// When the embedding has no dimension or the device cannot allocate.
    pub fn new(
        config: &ProjectionHeadConfig,
        input: usize,
        builder: &mut ParameterBuilder,
    ) -> Result<Self> {
        if config.embedding_dim == 0 {
            bail!("projection head: expected embedding_dim of at least 1, found 0");
        }
        let hidden = if config.hidden_dim == 0 {
            input
        } else {
            config.hidden_dim
        };
        let out = config.embedding_dim;
        let layers = match config.kind {
            HeadKind::Mlp => vec![
                Self::linear(builder, "0", input, hidden, true)?,
                Layer::Relu,
                Self::linear(builder, "2", hidden, out, true)?,
            ],
            HeadKind::BatchNormMlp => vec![
                Self::linear(builder, "0", input, hidden, false)?,
                Layer::Norm(BatchNorm::new(builder, "1", hidden, 1.0)?, Activate::Relu),
                Self::linear(builder, "3", hidden, out, false)?,
                Layer::Norm(BatchNorm::new(builder, "4", out, 1.0)?, Activate::Linear),
            ],
        };
        Ok(Self { layers })
    }

    fn linear(
        builder: &mut ParameterBuilder,
        name: &str,
        input: usize,
        out: usize,
        bias: bool,
    ) -> Result<Layer> {
        builder.scope(name, |b| {
            let weight = b.linear_weight("weight", out, input)?;
            let bias = if bias {
                Some(b.bias("bias", out, input)?)
            } else {
                None
            };
            Ok(Layer::Linear(weight, bias))
        })
    }

    /// Maps representations `[N,C]` to embeddings `[N,D]`, not yet normalised.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, tape: &mut Tape, representation: &Activation) -> Result<Activation> {
        self.layers
            .iter()
            .try_fold(representation.clone(), |x, layer| match layer {
                Layer::Linear(weight, bias) => linear(tape, &x, weight, bias.as_ref()),
                Layer::Norm(norm, activate) => norm.forward(tape, &x, None, *activate),
                Layer::Relu => relu(tape, &x),
            })
    }
}
