//! From the sums over the negatives to loss, statistics and the gradient of the queries.

use candle_core::{DType, Tensor};

use super::operands::Operand;
use super::{Launch, LossError, Stage};
use crate::bound::{BatchStatistics, QueryMeans};
use crate::cuda::{Fetch, address, address_mut};
use crate::loss::outcome::TIE;
use crate::margin::{Alpha, LossConfig};

/// Threads of a warp, which takes a query, and warps of a block: WARPS in `outcome.cu`.
const WARP: usize = 32;
const WARPS: usize = 4;
/// Threads of the one block that averages: REDUCERS in `outcome.cu`.
const REDUCERS: usize = 256;
/// Numbers of a query: FIELDS in `outcome.cu`.
const FIELDS: usize = 7;

/// What a sweep leaves for each part of the negatives.
#[derive(Debug)]
pub(super) struct Partials {
    parts: usize,
    /// Largest similarity, sum of weights and sum of similarities, f32 `[parts, 3, N]`.
    pub sums: Tensor,
    /// Sum of weighted keys, f32 `[parts, N, dim]`.
    pub weighted: Tensor,
}

impl Partials {
    pub(super) fn unwritten(
        stage: &Stage<'_>,
        parts: usize,
        queries: &Operand,
    ) -> Result<Self, LossError> {
        let (count, dim) = (queries.rows, queries.dim);
        Ok(Self {
            parts,
            sums: stage.memory.unwritten((parts, 3, count), DType::F32)?,
            weighted: stage.memory.unwritten((parts, count, dim), DType::F32)?,
        })
    }
}

/// Queries and their positives.
pub(super) struct Pairs<'a> {
    pub queries: &'a Operand,
    pub keys: &'a Operand,
    /// How many rows on a query's positive lies, cyclically: 0, or for NT-Xent the number of images.
    pub partner: usize,
    /// Negatives per query.
    pub negative_count: usize,
}

/// Everything that needs only one pass over the negatives, on the device.
#[derive(Debug)]
pub(super) struct Outcome {
    /// `[N, dim]`, in the format of the operands, or in f32 for NT-Xent, where it is one part of a sum.
    pub queries_gradient: Tensor,
    /// Largest similarity, `g / (temperature * N)` over the sum of weights, and `g / (temperature * N)`, f32 `[3, N]`.
    pub known: Tensor,
    /// Means and deviation, f64 `[FIELDS + 1]`.
    means: Tensor,
}

impl Pairs<'_> {
    /// Joins the parts and finishes the loss of all queries.
    pub(super) fn finish(
        &self,
        stage: &Stage<'_>,
        partials: &Partials,
    ) -> Result<Outcome, LossError> {
        let (count, dim) = (self.queries.rows, self.queries.dim);
        let is_part = self.partner != 0;
        let dtype = if is_part {
            DType::F32
        } else {
            stage.format.dtype
        };
        let queries_gradient = stage.memory.unwritten((count, dim), dtype)?;
        let known = stage.memory.unwritten((3, count), DType::F32)?;
        let fields = stage.memory.unwritten((FIELDS, count), DType::F64)?;
        let target = address_mut(&queries_gradient)?;
        let (finished, raw) = if is_part { (0, target) } else { (target, 0) };
        let alpha = stage.config.alpha;
        let launch = Launch::new(stage.kernel("loss_outcome_f32", "loss_outcome_bf16"))
            .grid(count.div_ceil(WARPS), 1, 1)
            .block(WARPS * WARP, 1)
            .arg(self.queries.address()?)
            .arg(self.keys.address()?)
            .arg(count)
            .arg(dim)
            .arg(self.partner)
            .arg(address(&partials.sums)?)
            .arg(address(&partials.weighted)?)
            .arg(partials.parts)
            .arg(stage.config.temperature)
            .arg(alpha.log_ratio(self.negative_count))
            .arg(tie(dim))
            .arg(stage.scale())
            .arg(alpha == Alpha::Decoupled)
            .arg(self.negative_count)
            .arg(finished)
            .arg(raw)
            .arg(address_mut(&known)?)
            .arg(address_mut(&fields)?);
        // SAFETY: these are the kernel's parameters, with matrices of the sizes that `checks` has seen and results of the
        // sizes that the kernel writes; the target that is not written is null. All live to the end of the call (on a device
        // memory is freed in the order of the queue).
        unsafe { stage.launch(&launch)? };
        Ok(Outcome {
            queries_gradient,
            known,
            means: means(stage, &fields, count)?,
        })
    }
}

fn means(stage: &Stage<'_>, fields: &Tensor, count: usize) -> Result<Tensor, LossError> {
    let means = stage.memory.unwritten(FIELDS + 1, DType::F64)?;
    let launch = Launch::new("loss_means")
        .block(REDUCERS, 1)
        .arg(address(fields)?)
        .arg(count)
        .arg(address_mut(&means)?);
    // SAFETY: `fields` is `[FIELDS, count]` in f64 and `means` has FIELDS + 1 values.
    unsafe { stage.launch(&launch)? };
    Ok(means)
}

impl Outcome {
    /// Asks for the figures of the batch.
    pub(super) fn figures(
        &self,
        stage: &Stage<'_>,
        negative_count: usize,
    ) -> Result<PendingFigures, LossError> {
        Ok(PendingFigures {
            means: stage.queue.fetch(&self.means)?,
            config: *stage.config,
            negative_count,
        })
    }
}

/// The numbers that describe a batch, on their way from the device.
#[derive(Debug)]
#[must_use]
pub struct PendingFigures {
    means: Fetch,
    config: LossConfig,
    negative_count: usize,
}

impl PendingFigures {
    /// Statistics of the batch and the derivative of the mean loss with respect to the temperature. Waits until the device
    /// has computed them; what has been sent to it since need not have run.
    ///
    /// # Errors
    /// When work before them has failed on the device.
    pub fn wait(self) -> Result<(BatchStatistics, f64), LossError> {
        let values = self.means.wait().map_err(candle_core::Error::from)?;
        let means = QueryMeans {
            loss: values[0],
            infonce_loss: values[1],
            gradient_scale: values[2],
            positive_similarity: values[3],
            negative_similarity: values[4],
            contrast_top1: values[5],
            gradient_scale_deviation: values[FIELDS],
        };
        let statistics = BatchStatistics::of_means(&means, &self.config, self.negative_count);
        Ok((statistics, values[6]))
    }
}

/// Two similarities whose relative difference is below this are a tie.
///
/// Tensor cores cut what does not fit behind each of `dim / 16` additions, up to 2^-23 of the sum and always towards zero, where
/// the positive's similarity is a sum in f64: twice that is added to what counts as a tie on the CPU.
fn tie(dim: usize) -> f64 {
    TIE + dim.div_ceil(16) as f64 * f64::from(f32::EPSILON) * 2.0
}
