//! Training steps with CUDA's kernels, emulated, against the portable ones: every method, both precisions, and every
//! piece of state. What a GPU adds is NVIDIA's convolutions and matrix products, in whose place the portable ones stand here.

use std::sync::Arc;

use anyhow::Result;
use candle_core::Device;
use eqco_models::backend::Backend;
use eqco_models::cuda::Cuda;
use eqco_models::method::MethodName;
use eqco_models::optim::{LarsConfig, OptimizerConfig, SgdConfig};
use eqco_models::{Architecture, EncoderConfig, Precision, Stem};
use eqco_train::gpu_check::{Problem, compare};

const STEPS: u64 = 4;

fn problem(method: MethodName, optimizer: OptimizerConfig, precision: Precision) -> Problem {
    Problem {
        encoder: EncoderConfig {
            architecture: Architecture::Resnet18,
            width: 8,
            // With the max pool.
            stem: Stem::Imagenet,
            zero_init_residual: false,
        },
        method,
        optimizer,
        precision,
        image_size: 33,
        batch_size: 16,
        batch_norm_group: 8,
    }
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
const IN_F32: f64 = 5e-5;

#[test]
fn steps_in_f32_are_those_of_the_portable_kernels() -> Result<()> {
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    let sgd = OptimizerConfig::Sgd(SgdConfig::default());
    let nesterov = OptimizerConfig::Sgd(SgdConfig {
        nesterov: true,
        ..SgdConfig::default()
    });
    let lars = OptimizerConfig::Lars(LarsConfig::default());
    for (method, optimizer) in [
        (MethodName::Simo, sgd),
        (MethodName::MocoV2, nesterov),
        (MethodName::Simclr, lars),
    ] {
        let problem = problem(method, optimizer, Precision::F32);
        let agreement = compare(&problem, &Device::Cpu, &cuda, STEPS, IN_F32)?;
        assert!(agreement.loss < 1e-5, "{method:?}: {agreement:?}");
        assert_eq!(
            agreement.steps_beyond(IN_F32),
            0,
            "{method:?}: {agreement:?}"
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
    for method in [MethodName::Simo, MethodName::MocoV2, MethodName::Simclr] {
        let problem = problem(method, sgd, Precision::Bf16);
        let agreement = compare(&problem, &Device::Cpu, &cuda, STEPS, f64::INFINITY)?;
        assert!(agreement.loss < 1e-2, "{method:?}: {agreement:?}");
    }
    Ok(())
}

/// What the bounds above start from.
#[test]
fn the_same_kernels_are_at_no_distance() -> Result<()> {
    let sgd = OptimizerConfig::Sgd(SgdConfig::default());
    let problem = problem(MethodName::Simo, sgd, Precision::F32);
    let same = compare(&problem, &Device::Cpu, &Backend::Portable, 2, 0.0)?;
    assert_eq!((same.loss, same.furthest().0), (0.0, 0.0), "{same:?}");
    assert_eq!(same.steps_beyond(0.0), 0);
    Ok(())
}
