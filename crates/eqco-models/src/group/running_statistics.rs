//! Running statistics of batch norm over the ranks: those that one process would have, going through the ranks' parts in
//! order.
//!
//! With `keep` the share of the old value that is left after the groups of one rank, r what came before the step and s_g what
//! rank g adds, one process ends at `keep^R r + Σ_g keep^(R−1−g) s_g`. So rank 0 begins a step with r and the others with
//! 0: rank g is at c_0 = keep·r + s_0, or c_g = s_g, and `Σ_g keep^(R−1−g) c_g` is that value.

use crate::error::ModelError;
use crate::group::ProcessGroup;
use crate::ops::access::copy_into;
use crate::ops::batch_norm::BATCH_NORM_MOMENTUM;
use crate::params::ParameterSet;

/// Makes the running statistics of `set` ready for a step of which this rank does a part.
pub(crate) fn begin_step(group: &ProcessGroup, set: &ParameterSet) -> Result<(), ModelError> {
    if group.rank() > 0 {
        for buffer in set.buffers() {
            copy_into(buffer.value(), &buffer.value().zeros_like()?)?;
        }
    }
    Ok(())
}

/// Puts the running statistics of all ranks together, after each has moved them by those of `updates` batch-norm groups.
pub(crate) fn end_step(
    group: &ProcessGroup,
    set: &ParameterSet,
    updates: usize,
) -> Result<(), ModelError> {
    if group.size() == 1 {
        return Ok(());
    }
    let later = group.size() - 1 - group.rank();
    let keep = (1.0 - BATCH_NORM_MOMENTUM).powi((updates * later) as i32);
    let mut values = Vec::new();
    for buffer in set.buffers() {
        if later > 0 {
            copy_into(buffer.value(), &(buffer.value() * keep)?)?;
        }
        values.push(buffer.value().clone());
    }
    group.sum(&values)
}
