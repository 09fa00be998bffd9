//! Training steps with CUDA's kernels, emulated, against the portable ones: every method, both precisions, and every
//! piece of state. What a GPU adds is NVIDIA's convolutions and matrix products, in whose place the portable ones stand here.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use eqco_core::{Alpha, DrawKind, LossConfig};
use eqco_models::backend::Backend;
use eqco_models::cuda::Cuda;
use eqco_models::method::{Method, MethodConfig, MethodName, StepKey};
use eqco_models::optim::{LarsConfig, Optimizer, OptimizerConfig, SgdConfig};
use eqco_models::tape::Gradients;
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, Precision, ProjectionHeadConfig,
    Stem,
};

const SIDE: usize = 33;
const BATCH: usize = 16;
const STEPS: u64 = 4;

fn encoder(precision: Precision, backend: &Backend) -> Result<Encoder> {
    let config = EncoderConfig {
        architecture: Architecture::Resnet18,
        width: 8,
        // With the max pool.
        stem: Stem::Imagenet,
        zero_init_residual: false,
    };
    let head = ProjectionHeadConfig {
        kind: HeadKind::BatchNormMlp,
        hidden_dim: 0,
        embedding_dim: 24,
    };
    let normalization = Normalization::CIFAR10;
    let encoder = Encoder::new(&config, &head, normalization, 1, &Device::Cpu)?;
    Ok(encoder
        .with_precision(precision)
        .with_backend(backend.clone()))
}

fn method(name: MethodName, encoder: &Encoder) -> Method {
    let (negative_count, ema_coefficient) = match name {
        MethodName::Simo => (5, 0.9),
        // Longer than the batches of all steps: some keys are those of the start.
        MethodName::MocoV2 => (67, 0.99),
        MethodName::Simclr => (0, 0.0),
    };
    let config = MethodConfig {
        name,
        negative_count,
        draw: DrawKind::PerQuery,
        ema_coefficient,
        batch_norm_group: 8,
        micro_batch: 0,
    };
    config.validate(BATCH).unwrap();
    let loss = LossConfig {
        temperature: 0.2,
        alpha: Alpha::Equivalent(256.0),
    };
    Method::new(&config, loss, encoder, 7).unwrap()
}

/// Smooth images, a little different in the two views.
fn views(step: u64, view: u32) -> Vec<u8> {
    (0..BATCH * SIDE * SIDE * 3)
        .map(|place| {
            let phase = (place as f32 * (0.011 + 0.002 * step as f32)) + 0.2 * view as f32;
            (128.0 + 100.0 * phase.sin() + 20.0 * (place as f32 * 0.43).cos()) as u8
        })
        .collect()
}

/// A family's state of training.
struct Trainer {
    encoder: Encoder,
    method: Method,
    optimizer: Optimizer,
    gradients: Gradients,
}

impl Trainer {
    fn new(
        name: MethodName,
        optimizer: &OptimizerConfig,
        precision: Precision,
        backend: &Backend,
    ) -> Result<Self> {
        let encoder = encoder(precision, backend)?;
        Ok(Self {
            method: method(name, &encoder),
            optimizer: Optimizer::new(optimizer, encoder.parameters())?.with_backend(backend),
            gradients: Gradients::new(encoder.parameters())?,
            encoder,
        })
    }

    /// The loss of a step, whose gradients are left to be looked at.
    fn step(&mut self, step: u64) -> Result<f64> {
        self.gradients.reset();
        let query = self.encoder.upload(&views(step, 0), SIDE)?;
        let key = self.encoder.upload(&views(step, 1), SIDE)?;
        let at = StepKey { seed: 7, step };
        let method = &mut self.method;
        let contrast = method.contrast(&self.encoder, &query, &key, at, &mut self.gradients)?;
        let parameters = self.encoder.parameters();
        self.optimizer.step(parameters, &self.gradients, 0.02)?;
        Ok(contrast.statistics.loss)
    }

    /// Everything that a checkpoint holds.
    fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = self.encoder.to_checkpoint()?;
        state.extend(self.method.state()?);
        state.extend(self.optimizer.state()?);
        Ok(state.into_iter().collect())
    }

    /// Goes on from the state of the other one.
    fn follow(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        self.encoder.load_named("encoder.", state)?;
        self.method.load_state(state)?;
        self.optimizer.load_state("", state)?;
        Ok(())
    }
}

fn largest(tensor: &Tensor) -> Result<f32> {
    let tensor = tensor.to_dtype(DType::F32)?;
    tensor.abs()?.flatten_all()?.max(0)?.to_scalar()
}

/// How far a tensor is from the portable kernels', of its largest value.
fn distance(portable: &Tensor, cuda: &Tensor) -> Result<f32> {
    Ok(largest(&(portable - cuda)?)? / largest(portable)?.max(1e-3))
}

/// CUDA's kernels in the emulator; `None`, and a line that says so, in a build without it.
fn emulated() -> Option<Backend> {
    let cuda = Cuda::emulated();
    if let Err(error) = &cuda {
        eprintln!("NOT RUN: {error}");
    }
    Some(Backend::Cuda(Arc::new(cuda.ok()?)))
}

/// Of the largest value of a tensor. f32 has 6e-8; sums are taken in another order, some in another precision, and batch
/// norms over few values amplify what comes out.
const IN_F32: f32 = 5e-5;
/// The same where a ReLU's input is so near to 0 that rounding decides: one element of a layer's gradient comes or goes.
const AT_A_KINK: f32 = 0.05;

/// Each step begins with the same state for both: training is chaotic where a ReLU's input is nearly 0, and a difference of
/// rounding would be one of percents two steps on.
#[test]
fn steps_in_f32_are_those_of_the_portable_kernels() -> Result<()> {
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    let nesterov = SgdConfig {
        nesterov: true,
        ..SgdConfig::default()
    };
    for (name, optimizer) in [
        (MethodName::Simo, OptimizerConfig::Sgd(SgdConfig::default())),
        (MethodName::MocoV2, OptimizerConfig::Sgd(nesterov)),
        (
            MethodName::Simclr,
            OptimizerConfig::Lars(LarsConfig::default()),
        ),
    ] {
        let mut portable = Trainer::new(name, &optimizer, Precision::F32, &Backend::Portable)?;
        let mut other = Trainer::new(name, &optimizer, Precision::F32, &cuda)?;
        let mut steps_at_a_kink = 0;
        for step in 0..STEPS {
            let (a, b) = (portable.step(step)?, other.step(step)?);
            assert!(
                (a - b).abs() < 1e-5 * a.abs().max(1.0),
                "{name:?}, step {step}: {a} {b}"
            );
            let (state, found) = (portable.state()?, other.state()?);
            assert_eq!(state.len(), found.len());
            let mut furthest = (0.0, String::new());
            for parameter in portable.encoder.parameters().parameters() {
                let gradient = |of: &Trainer| of.gradients.get(parameter).expect("reached").clone();
                let distance = distance(&gradient(&portable), &gradient(&other))?;
                if distance > furthest.0 {
                    furthest = (distance, format!("gradient of {}", parameter.name()));
                }
            }
            for (tensor, value) in &state {
                if value.dtype() != DType::F32 {
                    // Cursors and counts.
                    assert_eq!(value.to_string(), found[tensor].to_string(), "{tensor}");
                    continue;
                }
                let distance = distance(value, &found[tensor])?;
                if distance > furthest.0 {
                    furthest = (distance, tensor.clone());
                }
            }
            assert!(
                furthest.0 < AT_A_KINK,
                "{name:?}, step {step}: {furthest:?}"
            );
            steps_at_a_kink += usize::from(furthest.0 > IN_F32);
            other.follow(&state)?;
        }
        assert!(
            steps_at_a_kink <= 1,
            "{name:?}: {steps_at_a_kink} of {STEPS} steps differ"
        );
    }
    Ok(())
}

/// bf16 has 4e-3; activations are rounded after every layer, differently where sums differ by a rounding of f32.
#[test]
fn losses_in_bf16_stay_with_those_of_the_portable_kernels() -> Result<()> {
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    let sgd = OptimizerConfig::Sgd(SgdConfig::default());
    for name in [MethodName::Simo, MethodName::MocoV2, MethodName::Simclr] {
        let mut portable = Trainer::new(name, &sgd, Precision::Bf16, &Backend::Portable)?;
        let mut other = Trainer::new(name, &sgd, Precision::Bf16, &cuda)?;
        for step in 0..STEPS {
            let (a, b) = (portable.step(step)?, other.step(step)?);
            assert!(
                (a - b).abs() < 1e-2 * a.abs().max(1.0),
                "{name:?}, step {step}: {a} {b}"
            );
            other.follow(&portable.state()?)?;
        }
    }
    Ok(())
}
