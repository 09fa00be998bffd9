//! Taking a step back: what the contrast of a batch changes beside gradients, before anybody knows whether they can be used.

use candle_core::Tensor;

use super::Method;
use crate::encoder::Encoder;
use crate::error::ModelError;
use crate::key_queue::Overwritten;
use crate::ops::access::copy_into;
use crate::profile::bytes_of;

/// The momentum encoder, all running statistics and the part of the queue that a batch overwrites, as they were before it.
///
/// It has as much memory as the momentum encoder, kept from step to step, and filling it is one pass over that.
#[derive(Debug)]
pub struct Undo {
    /// What changes in place, and its copy.
    pairs: Vec<[Tensor; 2]>,
    queue: Option<Overwritten>,
}

impl Undo {
    /// Room for what `method` changes around `encoder`.
    ///
    /// # Errors
    /// When memory cannot be allocated.
    pub fn new(method: &Method, encoder: &Encoder) -> Result<Self, ModelError> {
        let momentum_encoder = method.momentum_encoder().map(Encoder::parameters);
        let buffers = std::iter::once(encoder.parameters()).chain(momentum_encoder);
        let buffers = buffers.flat_map(|set| set.buffers().iter().map(|buffer| buffer.value()));
        let parameters = momentum_encoder
            .into_iter()
            .flat_map(|set| set.parameters());
        let changing = buffers.chain(parameters.map(|parameter| parameter.value()));
        let pair = |live: &Tensor| Ok([live.clone(), live.zeros_like()?]);
        Ok(Self {
            pairs: changing.map(pair).collect::<Result<_, ModelError>>()?,
            queue: None,
        })
    }

    /// Bytes of the copies.
    pub fn bytes(&self) -> usize {
        bytes_of(self.pairs.iter().map(|[_, copy]| copy))
    }

    /// Copies everything before a step of `images` images a process.
    ///
    /// # Errors
    /// When copying fails.
    pub fn remember(&mut self, method: &Method, images: usize) -> Result<(), ModelError> {
        for [live, copy] in &self.pairs {
            copy_into(copy, live)?;
        }
        self.queue = match method {
            Method::Moco(moco) => Some(moco.queue.ahead(images * moco.group.size())?),
            Method::Simo(_) | Method::Simclr(_) => None,
        };
        Ok(())
    }

    /// Puts everything back to the bit.
    ///
    /// # Errors
    /// When copying fails.
    pub fn undo(&mut self, method: &mut Method) -> Result<(), ModelError> {
        for [live, copy] in &self.pairs {
            copy_into(live, copy)?;
        }
        match (method, self.queue.take()) {
            (Method::Moco(moco), Some(overwritten)) => moco.queue.put_back(&overwritten),
            _ => Ok(()),
        }
    }
}
