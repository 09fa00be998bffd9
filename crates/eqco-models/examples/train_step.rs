//! One encoder training step (forward, backward, SGD) timed on its own: our side of `cargo xtask bench train`.
//!
//! The loss is the mean squared error to a fixed random target on the embedding, so that nothing but the encoder counts.

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, bail};
use eqco_models::backend::{Backend, BackendName};
use eqco_models::cuda::CudaConfig;
use eqco_models::optim::{Optimizer, OptimizerConfig};
use eqco_models::profile::Profiler;
use eqco_models::tape::{Gradients, Mode};
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, Precision, ProjectionHeadConfig,
    Stem,
};
use serde_json::json;

struct Arguments {
    work: String,
    backend: BackendName,
    precision: Precision,
    batch: usize,
    threads: usize,
    steps: usize,
    json: bool,
    /// Prints where the time went, by operation and shape.
    profile: bool,
}

fn main() -> Result<()> {
    let arguments = parse()?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads)
        .build_global()
        .map_err(candle_core::Error::wrap)?;
    let (config, side) = work(&arguments.work)?;
    let memory_before = peak_memory_bytes();
    let head = ProjectionHeadConfig {
        kind: HeadKind::Mlp,
        hidden_dim: 0,
        embedding_dim: 128,
    };
    let backend = Backend::open(
        arguments.backend,
        arguments.precision,
        &Device::Cpu,
        CudaConfig::default(),
    )
    .map_err(candle_core::Error::wrap)?;
    let encoder = Encoder::new(&config, &head, Normalization::IMAGENET, 0, &Device::Cpu)?
        .with_backend(backend)
        .with_precision(arguments.precision);
    let profiler = if arguments.profile {
        Profiler::on()
    } else {
        Profiler::off()
    };
    let encoder = encoder.with_profiler(&profiler);
    let started = Instant::now();
    let pixels: Vec<u8> = (0..arguments.batch * side * side * 3)
        .map(|i| (i * 7919 % 251) as u8)
        .collect();
    let images = encoder.upload(&pixels, side)?;
    let target = Tensor::zeros((arguments.batch, 128), DType::F32, &Device::Cpu)?;
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), encoder.parameters())?;
    let mut gradients = Gradients::new(encoder.parameters())?;
    let mut seconds = Vec::new();
    for step in 0..arguments.steps + 2 {
        let start = Instant::now();
        gradients.reset();
        let mut tape = encoder.tape(Mode::Training);
        let embedding = encoder.embed(&mut tape, &images)?;
        let gradient =
            ((embedding.to_tensor()? - &target)? * (2.0 / (arguments.batch * 128) as f64))?;
        tape.backward(&embedding, &gradient, &mut gradients, &[])?;
        optimizer.step(encoder.parameters(), &gradients, 0.01)?;
        if step >= 2 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    if let Some(report) = profiler.report(arguments.steps as u64 + 2, started.elapsed()) {
        eprintln!("{report}");
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let memory = peak_memory_bytes();
    if arguments.json {
        let measurement = json!({
            "seconds_per_step": median,
            "steps": arguments.steps,
            "peak_memory_bytes": memory,
            "memory_before_bytes": memory_before,
            "threads": arguments.threads,
            "family": arguments.backend,
            "precision": arguments.precision,
        });
        println!("{measurement}");
    } else {
        println!(
            "{} {} {:?} batch {} threads {}: {:.1} images/s, peak memory {:.2} GB",
            arguments.work,
            encoder.backend(),
            arguments.precision,
            arguments.batch,
            arguments.threads,
            arguments.batch as f64 / median,
            memory as f64 / 1e9
        );
    }
    Ok(())
}

fn work(name: &str) -> Result<(EncoderConfig, usize)> {
    let small = |width| EncoderConfig {
        architecture: Architecture::Resnet18,
        width,
        stem: Stem::Cifar,
        zero_init_residual: false,
    };
    match name {
        "resnet18" => Ok((small(64), 32)),
        "resnet18-w16" => Ok((small(16), 32)),
        "resnet50" => Ok((EncoderConfig::imagenet(Architecture::Resnet50), 224)),
        other => bail!("--work: expected resnet18, resnet18-w16 or resnet50, found {other}"),
    }
}

fn parse() -> Result<Arguments> {
    let mut parsed = Arguments {
        work: "resnet18".into(),
        backend: BackendName::Portable,
        precision: Precision::F32,
        batch: 64,
        threads: 2,
        steps: 5,
        json: false,
        profile: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        if flag == "--json" {
            parsed.json = true;
            continue;
        }
        if flag == "--profile" {
            parsed.profile = true;
            continue;
        }
        let Some(value) = arguments.next() else {
            bail!("{flag} needs a value")
        };
        let number = || value.parse::<usize>().map_err(candle_core::Error::wrap);
        match flag.as_str() {
            "--work" => parsed.work = value,
            "--backend" => {
                parsed.backend = match value.as_str() {
                    "portable" => BackendName::Portable,
                    "onednn" => BackendName::Onednn,
                    _ => bail!("--backend: expected portable or onednn, found {value}"),
                }
            }
            "--precision" => {
                parsed.precision = match value.as_str() {
                    "f32" => Precision::F32,
                    "bf16" => Precision::Bf16,
                    _ => bail!("--precision: expected f32 or bf16, found {value}"),
                }
            }
            "--batch" => parsed.batch = number()?.max(1),
            "--threads" => parsed.threads = number()?,
            "--steps" => parsed.steps = number()?.max(1),
            other => bail!(
                "unknown flag {other}; known: --work --backend --precision --batch --threads --steps --json --profile"
            ),
        }
    }
    Ok(parsed)
}

/// Peak resident memory of this process; 0 where the system does not tell.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    kilobytes.unwrap_or(0) * 1024
}
