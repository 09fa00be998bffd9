//! The loss as a node of candle's graph.
//!
//! The kernels compute value and gradients together, so the node holds the gradients from the start
//! and its backward pass only multiplies them by the gradient that comes from above. It is the same
//! node on every device: value and gradients lie where the inputs do.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor,
};

use super::LossOutput;
use crate::error::LossError;
use crate::negatives::Negatives;

/// A loss whose gradients are known. Second derivatives are not: the gradients are constants.
struct KnownLoss {
    value: f32,
    queries: Tensor,
    keys: Option<Tensor>,
    negatives: Option<Tensor>,
}

impl From<LossOutput> for KnownLoss {
    fn from(output: LossOutput) -> Self {
        Self {
            value: output.loss as f32,
            queries: output.queries_gradient,
            keys: output.keys_gradient,
            negatives: output.negatives_gradient,
        }
    }
}

/// The loss as a function of its queries and of those other inputs that have a gradient.
pub(super) fn of_output(
    output: LossOutput,
    queries: &Tensor,
    keys: &Tensor,
    negatives: Negatives<'_>,
) -> std::result::Result<Tensor, LossError> {
    match negatives {
        Negatives::Shared(negatives) => of_three(output, queries, keys, negatives),
        Negatives::InBatch(_) => of_two(output, queries, keys),
        Negatives::InLargerBatch { .. } => of_two(output, queries, &keys.detach()),
    }
}

/// The loss as a function of queries and keys.
pub(super) fn of_two(
    output: LossOutput,
    queries: &Tensor,
    keys: &Tensor,
) -> std::result::Result<Tensor, LossError> {
    Ok(queries.apply_op2(keys, KnownLoss::from(output))?)
}

/// The loss as a function of queries, keys and shared negatives.
fn of_three(
    output: LossOutput,
    queries: &Tensor,
    keys: &Tensor,
    negatives: &Tensor,
) -> std::result::Result<Tensor, LossError> {
    Ok(queries.apply_op3(keys, negatives, KnownLoss::from(output))?)
}

const NAME: &str = "eqco-contrastive-loss";

impl KnownLoss {
    fn scalar(&self) -> (CpuStorage, Shape) {
        (CpuStorage::F32(vec![self.value]), Shape::from(()))
    }

    /// The same beside a storage on a GPU.
    fn scalar_beside(&self, input: &CudaStorage) -> Result<(CudaStorage, Shape)> {
        let value = input.device().storage_from_slice(&[self.value])?;
        Ok((value, Shape::from(())))
    }
}

fn times(gradient: &Tensor, from_above: &Tensor) -> Result<Tensor> {
    // In f32, so that a bf16 gradient is rounded once.
    let product = gradient.to_dtype(DType::F32)?.broadcast_mul(from_above)?;
    product.to_dtype(gradient.dtype())
}

impl CustomOp2 for KnownLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.scalar())
    }

    fn cuda_fwd(
        &self,
        queries: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.scalar_beside(queries)
    }

    fn bwd(
        &self,
        _queries: &Tensor,
        _keys: &Tensor,
        _loss: &Tensor,
        from_above: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let keys = self
            .keys
            .as_ref()
            .map(|g| times(g, from_above))
            .transpose()?;
        Ok((Some(times(&self.queries, from_above)?), keys))
    }
}

impl CustomOp3 for KnownLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.scalar())
    }

    fn cuda_fwd(
        &self,
        queries: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.scalar_beside(queries)
    }

    fn bwd(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        _negatives: &Tensor,
        loss: &Tensor,
        from_above: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (for_queries, for_keys) = CustomOp2::bwd(self, queries, keys, loss, from_above)?;
        let for_negatives = self
            .negatives
            .as_ref()
            .map(|g| times(g, from_above))
            .transpose()?;
        Ok((for_queries, for_keys, for_negatives))
    }
}
