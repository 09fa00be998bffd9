//! Gradients besides that of the queries.

use candle_core::{DType, Tensor};

use super::operands::Operand;
use super::outcome::{Outcome, Pairs};
use super::{Launch, LossError, Stage, shared};
use crate::cuda::{address, address_mut};

/// Threads of a block; each takes one value.
const THREADS: usize = 256;

/// Gradient with respect to the keys, `[N, dim]`: as positives, and what `as_negatives` (f32) says.
pub(super) fn of_positives(
    stage: &Stage<'_>,
    pairs: &Pairs<'_>,
    outcome: &Outcome,
    as_negatives: Option<&Tensor>,
) -> Result<Tensor, LossError> {
    let shape = (pairs.keys.rows, pairs.keys.dim);
    let sum = Sum {
        base: as_negatives,
        positives: Some((pairs, outcome)),
        parts: None,
    };
    sum.join(stage, shape)
}

/// Gradient with respect to shared negatives, `[K, dim]`: a second pass that computes the similarities again.
pub(super) fn of_shared(
    stage: &Stage<'_>,
    negatives: &Operand,
    queries: &Operand,
    outcome: &Outcome,
) -> Result<Tensor, LossError> {
    let parts = shared::gradient(stage, negatives, queries, &outcome.known, None)?;
    let sum = Sum {
        base: None,
        positives: None,
        parts: Some(&parts),
    };
    sum.join(stage, (negatives.rows, negatives.dim))
}

/// Gradient with respect to rows that are queries, positives and negatives at once, `[2 * half, dim]`.
pub(super) fn of_embeddings(
    stage: &Stage<'_>,
    pairs: &Pairs<'_>,
    outcome: &Outcome,
) -> Result<Tensor, LossError> {
    let rows = pairs.queries;
    let parts = shared::gradient(stage, rows, rows, &outcome.known, Some(pairs.partner))?;
    let sum = Sum {
        base: Some(&outcome.queries_gradient),
        positives: Some((pairs, outcome)),
        parts: Some(&parts),
    };
    sum.join(stage, (rows.rows, rows.dim))
}

/// What a gradient is the sum of.
struct Sum<'a> {
    /// f32, of the gradient's shape.
    base: Option<&'a Tensor>,
    /// Rows are the positives of these pairs.
    positives: Option<(&'a Pairs<'a>, &'a Outcome)>,
    /// f32 `[parts, rows, dim]`.
    parts: Option<&'a Tensor>,
}

impl Sum<'_> {
    fn join(&self, stage: &Stage<'_>, (rows, dim): (usize, usize)) -> Result<Tensor, LossError> {
        let gradient = stage.memory.unwritten((rows, dim), stage.format.dtype)?;
        let address_of = |tensor: Option<&Tensor>| tensor.map_or(Ok(0), address);
        let (queries, known, partner) = match self.positives {
            Some((pairs, outcome)) => (
                pairs.queries.address()?,
                address(&outcome.known)?,
                pairs.partner,
            ),
            None => (0, 0, 0),
        };
        let parts = self.parts.map_or(Ok(0), |parts| parts.dim(0))?;
        let launch = Launch::new(stage.kernel("gradient_join_f32", "gradient_join_bf16"))
            .grid((rows * dim).div_ceil(THREADS), 1, 1)
            .block(THREADS, 1)
            .arg(address_of(self.base)?)
            .arg(queries)
            .arg(known)
            .arg(partner)
            .arg(address_of(self.parts)?)
            .arg(parts)
            .arg(rows)
            .arg(dim)
            .arg(address_mut(&gradient)?);
        debug_assert!(self.base.is_none_or(|base| base.dtype() == DType::F32));
        // SAFETY: these are the kernel's parameters; all matrices are `[rows, dim]`, as each caller's documentation
        // says, what is absent is null, and all live to the end of the call (on a device memory is freed in the order
        // of the queue).
        unsafe { stage.launch(&launch)? };
        Ok(gradient)
    }
}
