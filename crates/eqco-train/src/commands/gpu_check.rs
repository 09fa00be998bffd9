//! `eqco-train gpu-check`: whether a GPU computes what the CPU does, and how fast.

use std::env;
use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::Device;
use eqco_models::Precision;
use eqco_models::backend::{Backend, BackendName};
use eqco_models::cuda::CudaConfig;

use crate::cli::GpuCheckArgs;
use crate::gpu_check::kernels::Place;
use crate::gpu_check::process::{self, MARK};
use crate::gpu_check::pytorch::Interpreter;
use crate::gpu_check::{Options, Outcome, Part, PartReport, Report, facts, run_part};
use crate::machine::Machine;
use crate::metrics::COMMIT;

pub(super) fn run(arguments: &GpuCheckArgs) -> Result<ExitCode> {
    let begun = Instant::now();
    let device = arguments.device.open().context(
        "nothing has been checked: gpu-check needs a GPU, and a build with `--features cuda`",
    )?;
    let backend = Backend::open(
        BackendName::Cuda,
        Precision::F32,
        &device,
        CudaConfig::default(),
    )
    .context("nothing has been checked: CUDA's kernels cannot be used")?;
    if let Some(part) = arguments.part {
        return run_here(part, arguments, &device, &backend);
    }
    if let Some(path) = &arguments.json {
        // Before minutes of work, not after.
        fs::write(path, "").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut report = Report {
        device: facts::device_name(&device),
        driver: facts::driver_version(),
        backend: backend.to_string(),
        cpu: format!("{} on {}", Backend::Portable, Machine::detect().cpu),
        version: env!("CARGO_PKG_VERSION"),
        commit: COMMIT,
        seed: arguments.seed,
        parts: Vec::new(),
        targets: Vec::new(),
        passed: false,
    };
    // Memory on the GPU is the parts' now.
    drop((backend, device));
    for part in Part::all(arguments.quick) {
        let (start, left) = (Instant::now(), remaining(arguments, begun));
        let outcome = run_apart(part, arguments, left);
        let seconds = start.elapsed().as_secs_f64();
        let verdict = if outcome.passed() { "ok" } else { "FAILED" };
        eprintln!("{part}: {verdict} after {seconds:.1} s");
        report.parts.push(PartReport::new(part, seconds, outcome));
        report = report.concluded();
        if let Some(path) = &arguments.json {
            let text = serde_json::to_string_pretty(&report)?;
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    let total = begun.elapsed().as_secs();
    super::print(&format!("{}{total} s in all\n", report.table()))?;
    Ok(if report.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn remaining(arguments: &GpuCheckArgs, begun: Instant) -> Duration {
    Duration::from_secs(arguments.limit).saturating_sub(begun.elapsed())
}

/// A part in a process of its own, which is stopped when it takes too long.
fn run_apart(part: Part, arguments: &GpuCheckArgs, left: Duration) -> Outcome {
    if left.is_zero() {
        return Outcome::broken(format!("not run: {} s are over", arguments.limit));
    }
    match command_of(part, arguments) {
        Ok(command) => process::run(command, part.limit().min(left)),
        Err(error) => Outcome::broken(format!("{error:#}")),
    }
}

/// This program again, with one part to run.
fn command_of(part: Part, arguments: &GpuCheckArgs) -> Result<Command> {
    let program = env::current_exe().context("this program does not know where it is")?;
    let mut command = Command::new(program);
    command
        .arg("gpu-check")
        .args(["--part", &part.to_string()])
        .args(["--device", &arguments.device.to_string()])
        .args(["--seed", &arguments.seed.to_string()])
        .args(["--steps", &arguments.steps.to_string()]);
    if arguments.no_pytorch {
        command.arg("--no-pytorch");
    } else {
        command.arg("--python").arg(&arguments.python);
    }
    Ok(command)
}

/// One part in this process. What was found so far is printed again and again, for the last of it to be there after a crash.
fn run_here(
    part: Part,
    arguments: &GpuCheckArgs,
    device: &Device,
    backend: &Backend,
) -> Result<ExitCode> {
    let pytorch = Interpreter {
        python: arguments.python.clone(),
        device: "cuda",
        is_small: false,
    };
    let options = Options {
        seed: arguments.seed,
        steps: usize::try_from(arguments.steps)?,
        pytorch: (!arguments.no_pytorch).then_some(pytorch),
    };
    let progress = |what: &str| eprintln!("{part}: {what}");
    let say = |outcome: &Outcome| -> Result<()> {
        super::print(&format!("{MARK}{}\n", serde_json::to_string(outcome)?))
    };
    let keep = |outcome: &Outcome| {
        if let Err(error) = say(outcome) {
            eprintln!("{part}: what was found cannot be told: {error:#}");
        }
    };
    let outcome = run_part(part, Place { device, backend }, &options, &progress, &keep);
    say(&outcome)?;
    Ok(ExitCode::SUCCESS)
}
