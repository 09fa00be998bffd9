//! Training steps with CUDA's kernels, emulated, against the portable ones: every method, both precisions, both kinds of
//! optimiser state. What a GPU adds is NVIDIA's convolutions and matrix products, in whose place the portable ones stand here.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use eqco_core::{Alpha, DrawKind, LossConfig};
use eqco_models::backend::Backend;
use eqco_models::cuda::Cuda;
use eqco_models::method::{Method, MethodConfig, MethodName, StepKey};
use eqco_models::optim::{AdamWConfig, LarsConfig, Optimizer, OptimizerConfig, SgdConfig};
use eqco_models::tape::Gradients;
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, Precision, ProjectionHeadConfig,
    Stem,
};

const SIDE: usize = 17;
const BATCH: usize = 12;
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
        batch_norm_group: 6,
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
            (128.0 + 100.0 * phase.sin() + 20.0 * (place as f32 * 0.37).cos()) as u8
        })
        .collect()
}

struct Run {
    losses: Vec<f64>,
    /// Of the first step.
    gradients: Vec<Tensor>,
    parameters: Vec<(String, Tensor)>,
}

fn run(
    name: MethodName,
    optimizer: &OptimizerConfig,
    precision: Precision,
    backend: &Backend,
) -> Result<Run> {
    let encoder = encoder(precision, backend)?;
    let mut method = method(name, &encoder);
    let mut optimizer = Optimizer::new(optimizer, encoder.parameters())?.with_backend(backend);
    let mut gradients = Gradients::new(encoder.parameters())?;
    let (mut losses, mut first) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        gradients.reset();
        let query = encoder.upload(&views(step, 0), SIDE)?;
        let key = encoder.upload(&views(step, 1), SIDE)?;
        let at = StepKey { seed: 7, step };
        let contrast = method.contrast(&encoder, &query, &key, at, &mut gradients)?;
        losses.push(contrast.statistics.loss);
        if step == 0 {
            let parameters = encoder.parameters().parameters().iter();
            let copies = parameters.map(|p| gradients.get(p).expect("reached").copy());
            first = copies.collect::<Result<_>>()?;
        }
        optimizer.step(encoder.parameters(), &gradients, 0.02)?;
    }
    let mut parameters = encoder.to_checkpoint()?;
    parameters.extend(method.state()?);
    Ok(Run {
        losses,
        gradients: first,
        parameters,
    })
}

fn largest(tensor: &Tensor) -> Result<f32> {
    let tensor = tensor.to_dtype(candle_core::DType::F32)?;
    tensor.abs()?.flatten_all()?.max(0)?.to_scalar()
}

/// Both families' runs; `None`, and a line that says so, in a build without the emulator.
fn both(
    name: MethodName,
    optimizer: &OptimizerConfig,
    precision: Precision,
) -> Result<Option<[Run; 2]>> {
    match Cuda::emulated() {
        Ok(cuda) => {
            let cuda = Backend::Cuda(Arc::new(cuda));
            Ok(Some([
                run(name, optimizer, precision, &Backend::Portable)?,
                run(name, optimizer, precision, &cuda)?,
            ]))
        }
        Err(error) => {
            eprintln!("NOT RUN: {error}");
            Ok(None)
        }
    }
}

/// Of the largest value of a tensor. Sums are taken in another order and some in another precision; f32 has 6e-8, and batch
/// norms of 6 images of few pixels amplify it.
const IN_F32: f32 = 5e-5;

#[test]
fn steps_in_f32_are_those_of_the_portable_kernels() -> Result<()> {
    let sgd = OptimizerConfig::Sgd(SgdConfig::default());
    let lars = OptimizerConfig::Lars(LarsConfig::default());
    let adamw = OptimizerConfig::AdamW(AdamWConfig::default());
    for (name, optimizer) in [
        (MethodName::Simo, sgd),
        (MethodName::MocoV2, adamw),
        (MethodName::Simclr, lars),
    ] {
        let Some([portable, cuda]) = both(name, &optimizer, Precision::F32)? else {
            return Ok(());
        };
        for (place, (a, b)) in portable.gradients.iter().zip(&cuda.gradients).enumerate() {
            let (scale, error) = (largest(a)?, largest(&(a - b)?)?);
            assert!(
                error <= IN_F32 * scale.max(1e-3),
                "{name:?}, gradient {place}: {error} of {scale}"
            );
        }
        for (step, (a, b)) in portable.losses.iter().zip(&cuda.losses).enumerate() {
            assert!(
                (a - b).abs() < 1e-4 * a.abs().max(1.0),
                "{name:?}, step {step}: {a} {b}"
            );
        }
        assert_ne!(portable.losses[0], portable.losses[3], "{name:?} learns");
        for ((tensor, a), (_, b)) in portable.parameters.iter().zip(&cuda.parameters) {
            if a.dtype() != candle_core::DType::F32 {
                continue;
            }
            let (scale, error) = (largest(a)?, largest(&(a - b)?)?);
            // AdamW divides by the gradient's own size: where that is nothing, rounding decides on a step's direction.
            let bound = if name == MethodName::MocoV2 {
                0.1
            } else {
                1e-3
            };
            assert!(
                error <= bound * scale.max(1e-2),
                "{name:?}, {tensor}: {error} of {scale}"
            );
        }
    }
    Ok(())
}

/// bf16 has 4e-3; activations are rounded after every layer, differently where sums differ by a rounding of f32.
#[test]
fn losses_in_bf16_stay_with_those_of_the_portable_kernels() -> Result<()> {
    let sgd = OptimizerConfig::Sgd(SgdConfig::default());
    for name in [MethodName::Simo, MethodName::MocoV2, MethodName::Simclr] {
        let Some([portable, cuda]) = both(name, &sgd, Precision::Bf16)? else {
            return Ok(());
        };
        for (step, (a, b)) in portable.losses.iter().zip(&cuda.losses).enumerate() {
            assert!(
                (a - b).abs() < 2e-2 * a.abs().max(1.0),
                "{name:?}, step {step}: {a} {b}"
            );
        }
    }
    Ok(())
}
