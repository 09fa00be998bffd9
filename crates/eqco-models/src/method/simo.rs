//! SiMo: MoCo without the queue. The negatives of a query are momentum keys of other images of its own batch; EqCo's
//! margin makes a handful of them do the work of many (arXiv 2010.01929, section 3.2 and the authors' code).

use std::sync::Arc;

use candle_core::Tensor;
use eqco_core::{ContrastiveLoss, NegativeDraw, Negatives};

use super::micro_batch::MicroBatch;
use super::{Contrast, MethodConfig, StepKey, contrast_with_keys, encode_keys};
use crate::encoder::Encoder;
use crate::error::ModelError;
use crate::group::ProcessGroup;
use crate::momentum_encoder::{ema_update, ema_work};
use crate::tape::Gradients;

/// SiMo's state: the momentum encoder.
#[derive(Debug)]
pub struct Simo {
    pub(super) config: MethodConfig,
    pub(super) group: Arc<ProcessGroup>,
    loss: ContrastiveLoss,
    pub(super) momentum_encoder: Encoder,
}

impl Simo {
    /// Starts the momentum encoder as a copy of the query encoder.
    ///
    /// # Errors
    /// When memory cannot be allocated.
    pub fn new(
        config: &MethodConfig,
        loss: ContrastiveLoss,
        encoder: &Encoder,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            config: *config,
            group: Arc::new(ProcessGroup::alone()),
            loss,
            momentum_encoder: encoder.duplicate()?,
        })
    }

    /// The encoder of the keys.
    pub fn momentum_encoder(&self) -> &Encoder {
        &self.momentum_encoder
    }

    pub(super) fn contrast(
        &mut self,
        encoder: &Encoder,
        query_views: &Tensor,
        key_views: &Tensor,
        key: StepKey,
        gradients: &mut Gradients,
    ) -> Result<Contrast, ModelError> {
        let span = encoder.profiler().span(|| ema_work(encoder.parameters()));
        ema_update(
            self.momentum_encoder.parameters(),
            encoder.parameters(),
            self.config.ema_coefficient,
            encoder.backend(),
        )?;
        drop(span);
        let own_keys = encode_keys(&self.momentum_encoder, key_views, &self.config)?;
        let keys = self.group.gather(&own_keys)?;
        let first = self.group.rank() * own_keys.dim(0)?;
        let draw = NegativeDraw::sample(
            self.config.draw,
            keys.dim(0)?,
            self.config.negative_count,
            key.seed,
            key.step,
        )?;

        let negatives = |part: MicroBatch| Negatives::InLargerBatch {
            draw: &draw,
            batch_keys: &keys,
            first: first + part.first,
        };
        contrast_with_keys(
            (&self.config, &self.loss),
            encoder,
            query_views,
            &own_keys,
            negatives,
            gradients,
        )
    }
}
