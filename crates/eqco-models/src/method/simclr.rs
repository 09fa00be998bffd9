//! SimCLR: one encoder, both views of every image, the 2N − 2 views of all other images as negatives of each view
//! (Chen et al., 2020). The margin of EqCo makes a small batch equivalent to a large one (arXiv 2010.01929, section 3.3).

use candle_core::Tensor;
use eqco_core::{BatchStatistics, LossConfig, nt_xent};

use super::{MethodConfig, group};
use crate::encoder::Encoder;
use crate::error::ModelError;
use crate::profile::{Phase, Work};
use crate::tape::{Gradients, Mode};

/// SimCLR has no state beside its encoder.
#[derive(Debug)]
pub struct Simclr {
    config: MethodConfig,
    loss: LossConfig,
}

impl Simclr {
    /// Sets the method up.
    pub fn new(config: &MethodConfig, loss: LossConfig) -> Self {
        Self {
            config: *config,
            loss,
        }
    }

    pub(super) fn contrast(
        &self,
        encoder: &Encoder,
        query_views: &Tensor,
        key_views: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<BatchStatistics, ModelError> {
        let batch = query_views.dim(0)?;
        let mut tape = encoder
            .tape(Mode::Training)
            .with_batch_norm_group(group(&self.config));
        // Both views in one pass: they share batch statistics, as in the paper.
        let views = Tensor::cat(&[query_views, key_views], 0)?;
        let embeddings = encoder.embed(&mut tape, &views)?;
        let values = embeddings.to_tensor()?;
        let span = encoder.profiler().span(|| Work::new("loss", Phase::Other));
        let output = nt_xent(
            &self.loss,
            &values.narrow(0, 0, batch)?,
            &values.narrow(0, batch, batch)?,
        )?;
        drop(span);
        let of_both_views: Vec<&Tensor> = std::iter::once(&output.queries_gradient)
            .chain(&output.keys_gradient)
            .collect();
        let gradient = Tensor::cat(&of_both_views, 0)?;
        tape.backward(&embeddings, &gradient, gradients, &[])?;
        Ok(output.statistics)
    }
}
