//! The three contrastive methods, one file each, each reading like its paper's algorithm.
//!
//! A method turns two views of a batch into the gradients of the query encoder. It owns what it needs beside that
//! encoder: a momentum encoder, a queue. What it owns is listed by [`Method::state`], so that a checkpoint is complete.

mod micro_batch;
mod moco;
mod over_ranks;
mod simclr;
mod simo;
mod statistics;
mod undo;
mod validate;

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Tensor;
use eqco_core::{ContrastiveLoss, DrawKind, LossConfig, LossError, Negatives, WantedGradients};
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::encoder::Encoder;
use crate::error::ModelError;
use crate::group::ProcessGroup;
use crate::ops::lanes::on_pool;
use crate::profile::{Phase, Work, bytes_of};
use crate::tape::{Gradients, Mode};
use micro_batch::MicroBatch;
use over_ranks::Part;
use statistics::Evaluated;

pub use moco::Moco;
pub use simclr::Simclr;
pub use simo::Simo;
pub use statistics::Statistics;
pub use undo::Undo;

/// Which method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// Momentum keys of the same batch as negatives, no queue (EqCo, section 3.2).
    Simo,
    /// A queue of past momentum keys (He et al., 2020; Chen et al., 2020).
    MocoV2,
    /// Both views of all other images, no momentum encoder (Chen et al., 2020).
    Simclr,
}

impl MethodName {
    /// The method's name in prose.
    pub fn title(self) -> &'static str {
        match self {
            Self::Simo => "SiMo",
            Self::MocoV2 => "MoCo v2",
            Self::Simclr => "SimCLR",
        }
    }
}

/// How a method is set up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodConfig {
    /// Which method.
    pub name: MethodName,
    /// Negatives per query, K: drawn from the batch for SiMo (at most batch size − 1), the length of the queue for
    /// MoCo v2. SimCLR always has 2·batch − 2, and the entry must be 0 there.
    pub negative_count: usize,
    /// How SiMo draws its negatives; of no effect elsewhere.
    pub draw: DrawKind,
    /// Share of the momentum encoder that is kept at every step, in 0..=1; of no effect for SimCLR.
    pub ema_coefficient: f64,
    /// Images that share batch-norm statistics; 0 for the whole batch. MoCo v2 needs groups on one device (its papers
    /// have 32 images per GPU and shuffle keys across GPUs): otherwise batch statistics give the positive away.
    pub batch_norm_group: usize,
    /// Images whose activations are in memory at one time: a step goes through its batch in parts of so many, with the
    /// same negatives, and adds up their gradients. 0 for the whole batch. The gradients are those of the whole batch, up
    /// to batch norm, whose statistics are those of a part (or of `batch_norm_group`) then.
    #[serde(default)]
    pub micro_batch: usize,
}

/// What the contrast of one batch gives beside gradients.
#[derive(Debug)]
pub struct Contrast {
    /// The loss and its statistics, over the whole batch; with several ranks over this one's part
    /// ([`ProcessGroup::statistics`] has those of all).
    pub statistics: Statistics,
    /// Embeddings of query views, `[M,D]`, unit rows: of all images, or of those of this rank, or of the last micro-batch.
    pub queries: Tensor,
    /// Embeddings of the key views of the same images, `[M,D]`.
    pub keys: Tensor,
}

impl MethodConfig {
    /// Negatives that each query really meets, K.
    pub fn negatives_per_query(&self, batch_size: usize) -> usize {
        match self.name {
            MethodName::Simclr => 2 * batch_size - 2,
            _ => self.negative_count,
        }
    }
}

/// The randomness of one step: everything drawn in it is keyed by these two.
#[derive(Clone, Copy, Debug)]
pub struct StepKey {
    /// The run's seed.
    pub seed: u64,
    /// Steps taken before this one, over all epochs.
    pub step: u64,
}

/// A method with its state.
#[derive(Debug)]
pub enum Method {
    /// See [`Simo`].
    Simo(Simo),
    /// See [`Moco`].
    Moco(Moco),
    /// See [`Simclr`].
    Simclr(Simclr),
}

impl Method {
    /// Sets up a method around an encoder at the start of training.
    ///
    /// # Errors
    /// When a value is out of range or memory cannot be allocated.
    pub fn new(
        config: &MethodConfig,
        loss: LossConfig,
        encoder: &Encoder,
        seed: u64,
    ) -> Result<Self, ModelError> {
        Ok(match config.name {
            MethodName::Simo => {
                Self::Simo(Simo::new(config, ContrastiveLoss::new(loss)?, encoder)?)
            }
            MethodName::MocoV2 => Self::Moco(Moco::new(
                config,
                ContrastiveLoss::new(loss)?,
                encoder,
                seed,
            )?),
            MethodName::Simclr => Self::Simclr(Simclr::new(config, loss)),
        })
    }

    /// The same method with its batches shared out among the processes of `group`.
    #[must_use]
    pub fn in_group(mut self, group: &Arc<ProcessGroup>) -> Self {
        let own = match &mut self {
            Self::Simo(simo) => &mut simo.group,
            Self::Moco(moco) => &mut moco.group,
            Self::Simclr(simclr) => &mut simclr.group,
        };
        *own = Arc::clone(group);
        self
    }

    /// Adds the gradients of one batch to `gradients`. Both views are normalised images `[N,S,S,3]`, of the same images in
    /// the same order. For methods with a momentum encoder this begins with its update, as in the authors' code.
    ///
    /// In a group the images are this rank's part of the batch, consecutive ones in the order of ranks, and `gradients`, which
    /// must be empty before, are those of the whole batch afterwards. An error leaves running statistics without a meaning.
    ///
    /// # Errors
    /// When shapes do not fit, the batch is too small for the negatives, or another rank is gone.
    pub fn contrast(
        &mut self,
        encoder: &Encoder,
        query_views: &Tensor,
        key_views: &Tensor,
        key: StepKey,
        gradients: &mut Gradients,
    ) -> Result<Contrast, ModelError> {
        let part = self.part(encoder);
        on_pool(|| {
            part.step(gradients, query_views.dim(0)?, |gradients| match self {
                Self::Simo(simo) => simo.contrast(encoder, query_views, key_views, key, gradients),
                Self::Moco(moco) => moco.contrast(encoder, query_views, key_views, key, gradients),
                Self::Simclr(simclr) => simclr.contrast(encoder, query_views, key_views, gradients),
            })
        })
    }

    /// The encoder of the keys, where it is another one than that of the queries.
    pub fn momentum_encoder(&self) -> Option<&Encoder> {
        match self {
            Self::Simo(simo) => Some(&simo.momentum_encoder),
            Self::Moco(moco) => Some(&moco.momentum_encoder),
            Self::Simclr(_) => None,
        }
    }

    /// Bytes of the queue, where there is one.
    pub fn queue_bytes(&self) -> usize {
        match self {
            Self::Moco(moco) => bytes_of([moco.queue.keys()]),
            Self::Simo(_) | Self::Simclr(_) => 0,
        }
    }

    /// What the processes of a group share in a step.
    fn part(&self, encoder: &Encoder) -> Part {
        let (config, group) = match self {
            Self::Simo(simo) => (&simo.config, &simo.group),
            Self::Moco(moco) => (&moco.config, &moco.group),
            Self::Simclr(simclr) => (&simclr.config, &simclr.group),
        };
        let encoders = std::iter::once(encoder).chain(self.momentum_encoder());
        Part {
            config: *config,
            group: Arc::clone(group),
            profiler: encoder.profiler().clone(),
            sets: encoders.map(|e| e.parameters().clone()).collect(),
        }
    }

    /// Everything that a checkpoint must hold for this method beside the query encoder.
    ///
    /// # Errors
    /// When copying fails.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>, ModelError> {
        match self {
            Self::Simo(simo) => prefixed(
                "momentum_encoder.",
                simo.momentum_encoder().parameters().to_named()?,
            ),
            Self::Moco(moco) => moco.state(),
            Self::Simclr(_) => Ok(Vec::new()),
        }
    }

    /// Restores what [`Method::state`] gave.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load_state(&mut self, tensors: &HashMap<String, Tensor>) -> Result<(), ModelError> {
        match self {
            Self::Simo(simo) => Ok(simo
                .momentum_encoder()
                .load_named("momentum_encoder.", tensors)?),
            Self::Moco(moco) => moco.load_state(tensors),
            Self::Simclr(_) => Ok(()),
        }
    }
}

fn prefixed(
    prefix: &str,
    named: Vec<(String, Tensor)>,
) -> Result<Vec<(String, Tensor)>, ModelError> {
    Ok(named
        .into_iter()
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor))
        .collect())
}

/// Queries against keys that need no gradient (MoCo, algorithm 1): the query encoder's pass, loss and backward pass, one
/// micro-batch after the other. `negatives` tells what a part's queries are contrasted with.
fn contrast_with_keys<'a>(
    (config, loss): (&MethodConfig, &ContrastiveLoss),
    encoder: &Encoder,
    query_views: &Tensor,
    keys: &Tensor,
    negatives: impl Fn(MicroBatch) -> Negatives<'a>,
    gradients: &mut Gradients,
) -> Result<Contrast, ModelError> {
    let mut statistics = Vec::new();
    let mut last = None;
    for part in MicroBatch::all(config, keys.dim(0)?) {
        let mut tape = encoder
            .tape(Mode::Training)
            .with_batch_norm_group(group(config));
        let embedded = encoder.embed(&mut tape, &part.of(query_views)?)?;
        let (queries, positives) = (embedded.to_tensor()?, part.of(keys)?);
        let span = encoder.profiler().span(|| Work::new("loss", Phase::Other));
        let (negatives, wanted) = (negatives(part), WantedGradients::QUERIES);
        let output: Evaluated = match encoder.backend() {
            Backend::Cuda(cuda) => {
                let queue = cuda.queue();
                loss.enqueue(queue, &queries, &positives, negatives, wanted)?
                    .into()
            }
            Backend::Portable | Backend::Onednn(_) => loss
                .evaluate(&queries, &positives, negatives, wanted)?
                .into(),
        };
        drop(span);
        let gradient = part.share_of(&output.queries_gradient)?;
        tape.backward(&embedded, &gradient, gradients, &[])?;
        statistics.push(output.statistics);
        last = Some((queries, positives));
    }
    let (queries, keys) = last.ok_or(LossError::NoNegatives)?;
    Ok(Contrast {
        statistics: Statistics::of_equal_parts(statistics),
        queries,
        keys,
    })
}

/// The key encoder's forward pass, in micro-batches: batch statistics, no gradient.
fn encode_keys(
    encoder: &Encoder,
    views: &Tensor,
    config: &MethodConfig,
) -> Result<Tensor, ModelError> {
    embed_in_parts(encoder, views, config, Mode::Unrecorded)
}

/// Embeddings `[N,D]` of normalised images, computed in micro-batches without a gradient.
fn embed_in_parts(
    encoder: &Encoder,
    views: &Tensor,
    config: &MethodConfig,
    mode: Mode,
) -> Result<Tensor, ModelError> {
    let mut embeddings = Vec::new();
    for part in MicroBatch::all(config, views.dim(0)?) {
        let mut tape = encoder.tape(mode).with_batch_norm_group(group(config));
        embeddings.push(encoder.embed(&mut tape, &part.of(views)?)?.to_tensor()?);
    }
    Ok(Tensor::cat(&embeddings, 0)?)
}

fn group(config: &MethodConfig) -> Option<usize> {
    (config.batch_norm_group > 0).then_some(config.batch_norm_group)
}
