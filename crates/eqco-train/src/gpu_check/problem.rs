//! A small training problem: a network, a method, an optimiser and images made up for it.

use std::collections::HashMap;

use anyhow::Result;
use candle_core::{Device, Tensor};
use eqco_core::{Alpha, DrawKind, LossConfig};
use eqco_models::backend::Backend;
use eqco_models::method::{Method, MethodConfig, MethodName, Statistics, StepKey};
use eqco_models::optim::{Optimizer, OptimizerConfig};
use eqco_models::tape::Gradients;
use eqco_models::{
    Encoder, EncoderConfig, HeadKind, Normalization, Precision, ProjectionHeadConfig,
};

const SEED: u64 = 7;
const LEARNING_RATE: f64 = 0.02;

/// What is trained, and how.
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    /// The backbone.
    pub encoder: EncoderConfig,
    /// The method.
    pub method: MethodName,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// Format of activations.
    pub precision: Precision,
    /// Side of the images in pixels.
    pub image_size: usize,
    /// Images of a batch.
    pub batch_size: usize,
    /// Images that share batch statistics; 0 for the whole batch.
    pub batch_norm_group: usize,
}

impl Problem {
    /// The problem at its first step, on one device with one family of kernels.
    pub(super) fn on(&self, device: &Device, backend: &Backend) -> Result<State> {
        let head = ProjectionHeadConfig {
            kind: HeadKind::BatchNormMlp,
            hidden_dim: 0,
            embedding_dim: 128,
        };
        let encoder = Encoder::new(&self.encoder, &head, Normalization::IMAGENET, SEED, device)?
            .with_precision(self.precision)
            .with_backend(backend.clone());
        let parameters = encoder.parameters();
        Ok(State {
            problem: *self,
            method: self.method(&encoder)?,
            optimizer: Optimizer::new(&self.optimizer, parameters)?.with_backend(backend),
            gradients: Gradients::new(parameters)?,
            encoder,
            learning_rate: LEARNING_RATE,
        })
    }

    fn method(&self, encoder: &Encoder) -> Result<Method> {
        let (negative_count, ema_coefficient) = match self.method {
            MethodName::Simo => (5, 0.9),
            // No multiple of the batch, and longer than some batches: the ring wraps around.
            MethodName::MocoV2 => (4 * self.batch_size + 3, 0.99),
            MethodName::Simclr => (0, 0.0),
        };
        let config = MethodConfig {
            name: self.method,
            negative_count,
            draw: DrawKind::PerQuery,
            ema_coefficient,
            batch_norm_group: self.batch_norm_group,
            micro_batch: 0,
        };
        config.validate(self.batch_size)?;
        let loss = LossConfig {
            temperature: 0.2,
            alpha: Alpha::Equivalent(256.0),
        };
        Ok(Method::new(&config, loss, encoder, SEED)?)
    }

    /// Smooth images, a little different in the two views and from step to step.
    fn view(&self, step: u64, view: u32) -> Vec<u8> {
        let bytes = self.batch_size * self.image_size * self.image_size * 3;
        (0..bytes)
            .map(|place| {
                let speed = 0.011 + 0.002 * (step % 16) as f32;
                let phase = place as f32 * speed + 0.2 * view as f32;
                (128.0 + 100.0 * phase.sin() + 20.0 * (place as f32 * 0.43).cos()) as u8
            })
            .collect()
    }
}

/// A problem under way.
pub(super) struct State {
    problem: Problem,
    pub(super) encoder: Encoder,
    pub(super) gradients: Gradients,
    method: Method,
    optimizer: Optimizer,
    pub(super) learning_rate: f64,
}

impl State {
    /// Both views of a step's images, as bytes.
    pub(super) fn views(&self, step: u64) -> [Vec<u8>; 2] {
        [0, 1].map(|view| self.problem.view(step, view))
    }

    /// The loss of one step on these views; its gradients are left to be looked at.
    pub(super) fn step(&mut self, step: u64, views: &[Vec<u8>; 2]) -> Result<f64> {
        Ok(self.send(step, views)?.wait()?.loss)
    }

    /// The same without waiting for the device.
    pub(super) fn send(&mut self, step: u64, views: &[Vec<u8>; 2]) -> Result<Statistics> {
        self.gradients.reset();
        let size = self.problem.image_size;
        let [query, key] = views;
        let (query, key) = (
            self.encoder.upload(query, size)?,
            self.encoder.upload(key, size)?,
        );
        let at = StepKey { seed: SEED, step };
        let method = &mut self.method;
        let contrast = method.contrast(&self.encoder, &query, &key, at, &mut self.gradients)?;
        let parameters = self.encoder.parameters();
        self.optimizer
            .step(parameters, &self.gradients, self.learning_rate)?;
        Ok(contrast.statistics)
    }

    /// Everything that a checkpoint holds, in host memory.
    pub(super) fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let mut tensors = self.encoder.to_checkpoint()?;
        tensors.extend(self.method.state()?);
        tensors.extend(self.optimizer.state()?);
        tensors
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.to_device(&Device::Cpu)?)))
            .collect()
    }

    /// Goes on from the state of another one.
    pub(super) fn follow(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.encoder
            .load_named(eqco_models::encoder::CHECKPOINT_PREFIX, tensors)?;
        self.method.load_state(tensors)?;
        self.optimizer.load_state("", tensors)?;
        Ok(())
    }
}
