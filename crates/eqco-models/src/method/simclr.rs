//! SimCLR: one encoder, both views of every image, the 2N − 2 views of all other images as negatives of each view
//! (Chen et al., 2020). The margin of EqCo makes a small batch equivalent to a large one (arXiv 2010.01929, section 3.3).

use std::sync::Arc;

use candle_core::Tensor;
use eqco_core::{LossConfig, LossError, enqueue_nt_xent, nt_xent};

use super::micro_batch::MicroBatch;
use super::statistics::Evaluated;
use super::{Contrast, MethodConfig, group};
use crate::backend::Backend;
use crate::encoder::Encoder;
use crate::error::ModelError;
use crate::group::ProcessGroup;
use crate::profile::{Phase, Work};
use crate::tape::{Gradients, Mode};

/// SimCLR has no state beside its encoder.
#[derive(Debug)]
pub struct Simclr {
    pub(super) config: MethodConfig,
    pub(super) group: Arc<ProcessGroup>,
    loss: LossConfig,
}

impl Simclr {
    /// Sets the method up.
    pub fn new(config: &MethodConfig, loss: LossConfig) -> Self {
        Self {
            config: *config,
            group: Arc::new(ProcessGroup::alone()),
            loss,
        }
    }

    pub(super) fn contrast(
        &self,
        encoder: &Encoder,
        query_views: &Tensor,
        key_views: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Contrast, ModelError> {
        if self.config.micro_batch > 0 {
            return self.contrast_in_parts(encoder, query_views, key_views, gradients);
        }
        let batch = query_views.dim(0)?;
        let mut tape = encoder
            .tape(Mode::Training)
            .with_batch_norm_group(group(&self.config));
        // Both views in one pass: they share batch statistics, as in the paper.
        let views = Tensor::cat(&[query_views, key_views], 0)?;
        let embeddings = encoder.embed(&mut tape, &views)?;
        let values = embeddings.to_tensor()?;
        let queries = self.group.gather(&values.narrow(0, 0, batch)?)?;
        let keys = self.group.gather(&values.narrow(0, batch, batch)?)?;
        let output = self.loss(encoder, &queries, &keys)?;
        let gradient = Tensor::cat(&self.gradients_of_both_views(&output)?, 0)?;
        tape.backward(&embeddings, &gradient, gradients, &[])?;
        Ok(Contrast {
            statistics: output.statistics,
            queries,
            keys,
        })
    }

    /// Every view is a negative of all others, so the loss needs all embeddings before any part can go backward: a first
    /// pass without a record finds them and their gradients, a second one takes each part through both directions (Gao et
    /// al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv 2101.06983). One more forward
    /// pass for the memory of one part; running statistics move in the second pass alone.
    fn contrast_in_parts(
        &self,
        encoder: &Encoder,
        query_views: &Tensor,
        key_views: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Contrast, ModelError> {
        let parts = || MicroBatch::all(&self.config, query_views.dim(0).unwrap_or(0));
        let both_views =
            |part: MicroBatch| Tensor::cat(&[part.of(query_views)?, part.of(key_views)?], 0);
        let pass = |mode| {
            encoder
                .tape(mode)
                .with_batch_norm_group(group(&self.config))
        };

        let (mut queries, mut keys) = (Vec::new(), Vec::new());
        for part in parts() {
            let embeddings = encoder.embed(&mut pass(Mode::Preview), &both_views(part)?)?;
            let halves = embeddings.to_tensor()?.chunk(2, 0)?;
            queries.push(halves[0].clone());
            keys.push(halves[1].clone());
        }
        let queries = self.group.gather(&Tensor::cat(&queries, 0)?)?;
        let keys = self.group.gather(&Tensor::cat(&keys, 0)?)?;
        let output = self.loss(encoder, &queries, &keys)?;
        let [query_gradient, key_gradient] = self.gradients_of_both_views(&output)?;
        for part in parts() {
            let mut tape = pass(Mode::Training);
            let embeddings = encoder.embed(&mut tape, &both_views(part)?)?;
            // Shares of one mean over the whole batch already.
            let gradient = [part.of(&query_gradient)?, part.of(&key_gradient)?];
            tape.backward(&embeddings, &Tensor::cat(&gradient, 0)?, gradients, &[])?;
        }
        Ok(Contrast {
            statistics: output.statistics,
            queries,
            keys,
        })
    }

    fn loss(
        &self,
        encoder: &Encoder,
        queries: &Tensor,
        keys: &Tensor,
    ) -> Result<Evaluated, ModelError> {
        let _span = encoder.profiler().span(|| Work::new("loss", Phase::Other));
        Ok(match encoder.backend() {
            Backend::Cuda(cuda) => enqueue_nt_xent(cuda.queue(), &self.loss, queries, keys)?.into(),
            Backend::Portable | Backend::Onednn(_) => nt_xent(&self.loss, queries, keys)?.into(),
        })
    }

    /// Those of the embeddings of this rank; NT-Xent always gives both. Every rank has the loss of the whole batch, and the
    /// gradients of parameters are averaged over the ranks, where their sum is wanted.
    fn gradients_of_both_views(&self, output: &Evaluated) -> Result<[Tensor; 2], ModelError> {
        let keys = output.keys_gradient.clone().ok_or(LossError::NoNegatives)?;
        let views = [output.queries_gradient.clone(), keys];
        let ranks = self.group.size();
        if ranks == 1 {
            return Ok(views);
        }
        let [queries, keys] = views.map(|all| self.group.own_rows(&all));
        Ok([(queries? * ranks as f64)?, (keys? * ranks as f64)?])
    }
}
