//! The fused loss on candle tensors: on the CPU here, on GPUs in `cuda`.
//!
//! `checks` looks at the inputs and `rows` reads them; `shared` or `gathered` passes over the negatives once and leaves a
//! `sweep`; `outcome` turns it into loss, statistics and the gradient of the queries. Gradients of
//! keys and negatives are computed only when asked for. `autograd` hangs the result into candle's
//! graph. The readable form of all formulas is [`crate::reference`].

mod autograd;
mod checks;
mod cuda;
mod gathered;
mod nt_xent;
mod outcome;
mod rows;
mod shared;
mod sweep;
mod tile_product;
mod vector;

use candle_core::Tensor;

use crate::bound::BatchStatistics;
use crate::error::LossError;
use crate::margin::LossConfig;
use crate::negatives::{NegativeDraw, Negatives};
use checks::Home;
pub use cuda::{PendingFigures, PendingLoss, enqueue_nt_xent, nt_xent_forward_on, nt_xent_on};
use gathered::GatheredNegatives;
pub use nt_xent::{nt_xent, nt_xent_forward};
use outcome::Pairs;
use rows::Rows;
use shared::{Exclusion, SharedNegatives};

/// Which gradients to compute besides those of queries and temperature, which come with the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WantedGradients {
    /// The gradient of the keys. Methods whose keys come from a momentum encoder do not need it.
    pub keys: bool,
    /// The gradient of shared negatives. In-batch negatives are keys: see `keys`.
    pub negatives: bool,
}

impl WantedGradients {
    /// Queries and temperature alone: all that SiMo and MoCo need.
    pub const QUERIES: Self = Self {
        keys: false,
        negatives: false,
    };
    /// Everything.
    pub const ALL: Self = Self {
        keys: true,
        negatives: true,
    };
}

/// The gradients that candle's graph asks for: of what is a variable or depends on one.
fn tracked(keys: &Tensor, negatives: Negatives<'_>) -> WantedGradients {
    WantedGradients {
        keys: keys.track_op(),
        negatives: matches!(negatives, Negatives::Shared(negatives) if negatives.track_op()),
    }
}

/// Value, gradients and statistics of the loss of one batch.
///
/// Gradients are those of the mean loss over the batch. Each has the shape and the element type of
/// the tensor that it belongs to; they are computed in f32.
#[derive(Debug, Clone)]
pub struct LossOutput {
    /// Mean loss over the queries, in nats. NaN when an input is not finite.
    pub loss: f64,
    /// Gradient with respect to the queries, `[N, D]`.
    pub queries_gradient: Tensor,
    /// Gradient with respect to the keys, `[N, D]`, when wanted: as positives and, for in-batch
    /// draws, as negatives too. Never there for [`Negatives::InLargerBatch`].
    pub keys_gradient: Option<Tensor>,
    /// Gradient with respect to shared negatives, `[K, D]`, when wanted.
    pub negatives_gradient: Option<Tensor>,
    /// Derivative of the mean loss with respect to the temperature.
    pub temperature_gradient: f64,
    /// What to log about the batch.
    pub statistics: BatchStatistics,
}

/// The EqCo loss (arXiv 2010.01929, equation 4) with one positive and `K` negatives a query.
///
/// Memory: besides its outputs it needs a few tiles a thread; the `[N, K]` matrix of logits never
/// exists. The result does not depend on the number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContrastiveLoss {
    config: LossConfig,
}

impl ContrastiveLoss {
    /// A loss with the given temperature and alpha.
    ///
    /// # Errors
    /// Those of [`LossConfig::validate`].
    pub fn new(config: LossConfig) -> Result<Self, LossError> {
        config.validate()?;
        Ok(Self { config })
    }

    /// The temperature and alpha of this loss.
    pub fn config(&self) -> &LossConfig {
        &self.config
    }

    /// Loss, gradients and statistics in one go, without candle's graph.
    ///
    /// `queries` and `keys` are `[N, D]`, row `i` of `keys` being the positive of query `i`; shared
    /// negatives are `[K, D]`. Each is f32 or bf16 on the CPU, in any memory layout; [`Self::evaluate_on`] takes those of a GPU.
    /// Rows are used as they are: normalise them first if similarities are to be cosines.
    ///
    /// # Errors
    /// [`LossError::Shape`], [`LossError::Dtype`] and [`LossError::Device`] name the input that does
    /// not fit; [`LossError::Draw`] a draw that was made for another batch size, or queries that reach
    /// beyond the batch; [`LossError::NoNegatives`] an empty matrix of negatives.
    pub fn evaluate(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        negatives: Negatives<'_>,
        wanted: WantedGradients,
    ) -> Result<LossOutput, LossError> {
        checks::inputs(Home::Cpu, queries, keys, negatives)?;
        match negatives {
            Negatives::Shared(negatives) => self.evaluate_shared(queries, keys, negatives, wanted),
            Negatives::InBatch(draw) => self.evaluate_drawn(queries, keys, (draw, keys, 0), wanted),
            Negatives::InLargerBatch {
                draw,
                batch_keys,
                first,
            } => {
                // Only the whole batch knows what its keys do as negatives.
                let wanted = WantedGradients {
                    keys: false,
                    ..wanted
                };
                self.evaluate_drawn(queries, keys, (draw, batch_keys, first), wanted)
            }
        }
    }

    /// The loss as a scalar f32 tensor that candle's `backward` can follow into queries, keys and
    /// shared negatives, whichever of them are variables or depend on some.
    ///
    /// The gradients are computed here and now, together with the value; `backward` only scales
    /// them. Second derivatives and the gradient of the temperature are not part of the graph.
    ///
    /// Tensors are on the CPU; [`Self::forward_on`] takes those of a GPU.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn forward(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        negatives: Negatives<'_>,
    ) -> Result<Tensor, LossError> {
        let output = self.evaluate(queries, keys, negatives, tracked(keys, negatives))?;
        autograd::of_output(output, queries, keys, negatives)
    }

    fn evaluate_shared(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        negatives: &Tensor,
        wanted: WantedGradients,
    ) -> Result<LossOutput, LossError> {
        let (negative_count, dim) = negatives.dims2()?;
        let (query_rows, key_rows) = (rows::to_f32(queries)?, rows::to_f32(keys)?);
        let negative_rows = negatives.contiguous()?;
        let (storage, layout) = negative_rows.storage_and_layout();
        let problem = SharedNegatives {
            queries: &query_rows,
            negatives: Rows::of("negatives", &storage, layout)?,
            dim,
            inverse_temperature: self.inverse_temperature(),
            exclusion: Exclusion::Nothing,
        };
        let sweep = problem.sweep();
        let pairs = self.pairs(&query_rows, &key_rows, dim, negative_count);
        let outcome = pairs.finish(&sweep);

        let keys_gradient = wanted.keys.then(|| pairs.positives_gradient(&outcome));
        let negatives_gradient = wanted
            .negatives
            .then(|| problem.negatives_gradient(&sweep, &outcome.coefficients));
        Ok(LossOutput {
            loss: outcome.statistics.loss,
            queries_gradient: rows::gradient_of(queries, outcome.queries_gradient)?,
            keys_gradient: keys_gradient
                .map(|g| rows::gradient_of(keys, g))
                .transpose()?,
            negatives_gradient: negatives_gradient
                .map(|g| rows::gradient_of(negatives, g))
                .transpose()?,
            temperature_gradient: outcome.temperature_gradient,
            statistics: outcome.statistics,
        })
    }

    /// The loss with negatives drawn from all keys of a batch, of which the queries are some from a place on.
    fn evaluate_drawn(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        (draw, batch_keys, first): (&NegativeDraw, &Tensor, usize),
        wanted: WantedGradients,
    ) -> Result<LossOutput, LossError> {
        let (query_rows, key_rows) = (rows::to_f32(queries)?, rows::to_f32(keys)?);
        let batch_rows = rows::to_f32(batch_keys)?;
        let dim = queries.dim(1)?;
        let problem = GatheredNegatives {
            queries: &query_rows,
            keys: &batch_rows,
            draw,
            first,
            dim,
            inverse_temperature: self.inverse_temperature(),
        };
        let sweep = problem.sweep();
        let pairs = self.pairs(&query_rows, &key_rows, dim, draw.negative_count());
        let outcome = pairs.finish(&sweep);

        let keys_gradient = wanted.keys.then(|| {
            let mut gradient = pairs.positives_gradient(&outcome);
            problem.add_keys_gradient(&sweep, &outcome.coefficients, &mut gradient);
            gradient
        });
        Ok(LossOutput {
            loss: outcome.statistics.loss,
            queries_gradient: rows::gradient_of(queries, outcome.queries_gradient)?,
            keys_gradient: keys_gradient
                .map(|g| rows::gradient_of(keys, g))
                .transpose()?,
            negatives_gradient: None,
            temperature_gradient: outcome.temperature_gradient,
            statistics: outcome.statistics,
        })
    }

    fn pairs<'a>(
        &'a self,
        queries: &'a [f32],
        positives: &'a [f32],
        dim: usize,
        negative_count: usize,
    ) -> Pairs<'a> {
        Pairs {
            queries,
            positives,
            dim,
            negative_count,
            config: &self.config,
        }
    }

    fn inverse_temperature(&self) -> f32 {
        (1.0 / self.config.temperature) as f32
    }
}
