//! `eqco-train gpu-check`: whether a GPU computes what the CPU does, and how fast.

use std::process::ExitCode;

use anyhow::{Context, Result};
use candle_core::Device;
use eqco_models::backend::{Backend, BackendName};
use eqco_models::method::MethodName;
use eqco_models::optim::{LarsConfig, OptimizerConfig, SgdConfig};
use eqco_models::{Architecture, EncoderConfig, Precision, Stem};

use crate::cli::GpuCheckArgs;
use crate::gpu_check::{Problem, compare, copy_rate, step_rate};

/// In f32 a tensor is at most so far from the CPU's, of its largest value: sums are taken in another order, and batch norms of
/// few values amplify what comes out.
const IN_F32: f64 = 2e-4;
/// One step of a comparison may be so far: one ReLU's input near 0 was enough.
const AT_A_KINK: f64 = 0.05;
/// Losses in bf16, which has three digits; gradients of single elements are not compared.
const LOSS_IN_BF16: f64 = 2e-2;
const LOSS_IN_F32: f64 = 1e-4;

pub(super) fn run(arguments: &GpuCheckArgs) -> Result<ExitCode> {
    let device = arguments.device.open().context(
        "nothing has been checked: gpu-check needs a GPU, and a build with `--features cuda`",
    )?;
    let backend = Backend::open(BackendName::Cuda, Precision::F32, &device)?;
    println!(
        "{backend} on {}, against the portable kernels of the CPU",
        arguments.device
    );
    let mut failures = 0;
    for (name, problem) in problems() {
        failures += usize::from(!check(&name, &problem, &device, &backend)?);
    }
    println!(
        "copies within memory: {:.0} GB/s",
        copy_rate(&device)? / 1e9
    );
    for (name, problem) in workloads() {
        match step_rate(&problem, &device, &backend, arguments.steps) {
            Ok(speed) => println!(
                "{name}: {:.1} ms a step, {:.0} images/s",
                speed.step_milliseconds, speed.images_per_second
            ),
            Err(error) => {
                failures += 1;
                println!("{name}: FAILED, {error:#}");
            }
        }
    }
    anyhow::ensure!(failures == 0, "{failures} checks failed");
    println!("all checks passed");
    Ok(ExitCode::SUCCESS)
}

/// Prints one line; whether it passed.
fn check(name: &str, problem: &Problem, device: &Device, backend: &Backend) -> Result<bool> {
    const STEPS: u64 = 6;
    let agreement = match compare(problem, device, backend, STEPS) {
        Ok(agreement) => agreement,
        Err(error) => {
            println!("FAILED  {name}: {error:#}");
            return Ok(false);
        }
    };
    let (distance, tensor) = agreement.furthest();
    let beyond = agreement.steps_beyond(IN_F32);
    let passed = match problem.precision {
        Precision::F32 => agreement.loss <= LOSS_IN_F32 && beyond <= 1 && distance <= AT_A_KINK,
        Precision::Bf16 => agreement.loss <= LOSS_IN_BF16,
    };
    println!(
        "{}  {name}: loss within {:.1e}, {beyond} of {STEPS} steps beyond {IN_F32:.0e}, furthest {distance:.1e} ({tensor})",
        if passed { "ok    " } else { "FAILED" },
        agreement.loss
    );
    Ok(passed)
}

fn encoder(architecture: Architecture, width: usize, stem: Stem) -> EncoderConfig {
    EncoderConfig {
        architecture,
        width,
        stem,
        zero_init_residual: false,
    }
}

/// Every method, both precisions, odd shapes. Not AdamW: it divides by the gradient's own size, so that where that is nothing
/// rounding decides on a whole step.
fn problems() -> Vec<(String, Problem)> {
    let sgd = OptimizerConfig::Sgd(SgdConfig::default());
    let lars = OptimizerConfig::Lars(LarsConfig::default());
    let nesterov = OptimizerConfig::Sgd(SgdConfig {
        nesterov: true,
        ..SgdConfig::default()
    });
    let small = encoder(Architecture::Resnet18, 8, Stem::Imagenet);
    let odd = encoder(Architecture::Resnet18, 12, Stem::Cifar);
    let bottlenecks = encoder(Architecture::Resnet50, 16, Stem::Imagenet);
    let cases = [
        (MethodName::Simo, sgd, small, 33),
        (MethodName::MocoV2, nesterov, odd, 17),
        (MethodName::Simclr, lars, bottlenecks, 65),
    ];
    let formats = [Precision::F32, Precision::Bf16];
    let all = cases
        .into_iter()
        .flat_map(|case| formats.map(|precision| (case, precision)));
    all.map(|((method, optimizer, encoder, image_size), precision)| {
        let problem = Problem {
            encoder,
            method,
            optimizer,
            precision,
            image_size,
            batch_size: 16,
            batch_norm_group: 8,
        };
        let name = format!(
            "{} with {:?} of width {}, {image_size} pixels, {precision:?}",
            method.title(),
            encoder.architecture,
            encoder.width
        );
        (name, problem)
    })
    .collect()
}

/// What is timed: whole steps as people train them.
fn workloads() -> Vec<(&'static str, Problem)> {
    let problem = |architecture, stem, image_size, batch_size| Problem {
        encoder: encoder(architecture, 64, stem),
        method: MethodName::Simo,
        optimizer: OptimizerConfig::Sgd(SgdConfig::default()),
        precision: Precision::Bf16,
        image_size,
        batch_size,
        batch_norm_group: 0,
    };
    vec![
        (
            "SiMo, ResNet-18, 32 pixels, batch 512, bf16",
            problem(Architecture::Resnet18, Stem::Cifar, 32, 512),
        ),
        (
            "SiMo, ResNet-50, 224 pixels, batch 256, bf16",
            problem(Architecture::Resnet50, Stem::Imagenet, 224, 256),
        ),
    ]
}
