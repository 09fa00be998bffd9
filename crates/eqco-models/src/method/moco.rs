//! MoCo v2: the negatives are a queue of keys of past batches (He et al., 2020; Chen et al., 2020). With EqCo's margin
//! the queue may be short.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Tensor;
use eqco_core::{ContrastiveLoss, Negatives};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{Contrast, MethodConfig, StepKey, contrast_with_keys, encode_keys, prefixed};
use crate::encoder::Encoder;
use crate::error::ModelError;
use crate::group::ProcessGroup;
use crate::key_queue::KeyQueue;
use crate::momentum_encoder::{ema_update, ema_work};
use crate::tape::Gradients;

/// MoCo's state: momentum encoder and queue.
#[derive(Debug)]
pub struct Moco {
    pub(super) config: MethodConfig,
    pub(super) group: Arc<ProcessGroup>,
    loss: ContrastiveLoss,
    pub(super) momentum_encoder: Encoder,
    pub(super) queue: KeyQueue,
}

impl Moco {
    /// Starts the momentum encoder as a copy of the query encoder, and the queue with random unit vectors.
    ///
    /// # Errors
    /// When memory cannot be allocated.
    pub fn new(
        config: &MethodConfig,
        loss: ContrastiveLoss,
        encoder: &Encoder,
        seed: u64,
    ) -> Result<Self, ModelError> {
        let queue = KeyQueue::new(
            config.negative_count,
            encoder.head_config().embedding_dim,
            seed,
            encoder.device(),
        )?;
        Ok(Self {
            config: *config,
            group: Arc::new(ProcessGroup::alone()),
            loss,
            momentum_encoder: encoder.duplicate()?,
            queue,
        })
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
        let keys = self.shuffled_keys(key_views, key)?;

        let contrast = contrast_with_keys(
            (&self.config, &self.loss),
            encoder,
            query_views,
            &self.group.own_rows(&keys)?,
            |_| Negatives::Shared(self.queue.keys()),
            gradients,
        )?;
        self.queue.enqueue(&keys)?;
        Ok(contrast)
    }

    /// Keys of the whole batch `[N,D]`, computed in shuffled order and put back, so that an image's query and key fall into
    /// different batch-norm groups (MoCo's ShuffleBN, for which ranks exchange their images as MoCo's do; with the whole
    /// batch as one group the order does not matter and nothing is moved).
    fn shuffled_keys(&self, key_views: &Tensor, key: StepKey) -> Result<Tensor, ModelError> {
        let (config, group) = (&self.config, &self.group);
        if config.batch_norm_group == 0 && config.micro_batch == 0 && group.size() == 1 {
            return encode_keys(&self.momentum_encoder, key_views, config);
        }
        let views = group.gather(key_views)?;
        let order = permutation(views.dim(0)?, key);
        let mut back = vec![0u32; order.len()];
        order
            .iter()
            .enumerate()
            .for_each(|(place, image)| back[*image as usize] = place as u32);
        let device = views.device();
        let own = group.own_rows(&Tensor::new(order, device)?)?;
        let keys = encode_keys(
            &self.momentum_encoder,
            &views.index_select(&own, 0)?,
            config,
        )?;
        let keys = group.gather(&keys)?;
        Ok(keys.index_select(&Tensor::new(back, device)?, 0)?)
    }

    pub(super) fn state(&self) -> Result<Vec<(String, Tensor)>, ModelError> {
        let mut state = prefixed(
            "momentum_encoder.",
            self.momentum_encoder.parameters().to_named()?,
        )?;
        state.extend(prefixed("queue.", self.queue.state()?)?);
        Ok(state)
    }

    pub(super) fn load_state(
        &mut self,
        tensors: &HashMap<String, Tensor>,
    ) -> Result<(), ModelError> {
        self.momentum_encoder
            .load_named("momentum_encoder.", tensors)?;
        self.queue.load_state("queue.", tensors)
    }
}

/// A uniform permutation of `0..count` keyed by seed and step (Fisher and Yates).
fn permutation(count: usize, key: StepKey) -> Vec<u32> {
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&key.seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&key.step.to_le_bytes());
    bytes[16..].copy_from_slice(b"key order       ");
    let mut stream = ChaCha8Rng::from_seed(bytes);
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        // The bias of the multiply-shift method is below 2^-32 for any batch.
        let other = ((u128::from(stream.next_u64()) * (last as u128 + 1)) >> 64) as usize;
        order.swap(last, other);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_permutation_is_one_and_depends_on_the_step() {
        let orders = [0, 1].map(|step| permutation(64, StepKey { seed: 5, step }));
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..64).collect::<Vec<_>>());
        }
        assert_ne!(orders[0], orders[1]);
        assert_eq!(orders[0], permutation(64, StepKey { seed: 5, step: 0 }));
    }
}
