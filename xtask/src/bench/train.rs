//! `cargo xtask bench train`: images per second of one training step, ours beside PyTorch's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use super::pairing::{Comparison, Measurement, compare};
use crate::{python, repository};

/// One training step, in alternation with PyTorch where there is one.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to train; may be repeated [default: resnet18 and resnet18-w16]
    #[arg(long, value_enum)]
    work: Vec<Work>,
    /// Threads on either side [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// How often each side runs
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// One JSON object a line rather than a table
    #[arg(long)]
    json: bool,
}

/// A network and its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    /// ResNet-18, CIFAR stem, 32x32 images, batch 64
    #[value(name = "resnet18")]
    Resnet18,
    /// The same with 16 instead of 64 channels in its first stage
    #[value(name = "resnet18-w16")]
    Resnet18W16,
    /// ResNet-50, ImageNet stem, 224x224 images, batch 8
    #[value(name = "resnet50")]
    Resnet50,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Resnet18 => "resnet18",
            Self::Resnet18W16 => "resnet18-w16",
            Self::Resnet50 => "resnet50",
        }
    }

    fn batch(self) -> usize {
        match self {
            Self::Resnet18 | Self::Resnet18W16 => 64,
            Self::Resnet50 => 8,
        }
    }

    /// Steps a run: enough for a few seconds.
    fn steps(self) -> usize {
        match self {
            Self::Resnet18 => 5,
            Self::Resnet18W16 => 25,
            Self::Resnet50 => 3,
        }
    }
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.unwrap_or(cores);
    ensure!(threads > 0, "--threads must be at least 1");
    let works = match arguments.work.as_slice() {
        [] => &[Work::Resnet18, Work::Resnet18W16],
        chosen => chosen,
    };
    let torch = python::with_packages(&["torch"])?;
    if torch.is_none() {
        eprintln!("no PyTorch here, so only our side runs: {}", python::HINT);
    }
    let example = build_example()?;
    if !arguments.json {
        println!("{}", table_head());
    }
    for work in works {
        let comparison = measure(*work, threads, arguments.pairs, &example, torch.as_deref())?;
        if arguments.json {
            println!("{}", serde_json::to_string(&comparison)?);
        } else {
            println!("{}", table_line(&comparison));
        }
    }
    Ok(())
}

fn measure(
    work: Work,
    threads: usize,
    pairs: u32,
    example: &Path,
    torch: Option<&Path>,
) -> Result<Comparison> {
    let mut ours = Vec::new();
    let mut peers = Vec::new();
    for pair in 1..=pairs {
        eprintln!("{}: pair {pair} of {pairs}", work.name());
        ours.push(measure_once(Command::new(example), work, threads)?);
        if let Some(python) = torch {
            let mut command = Command::new(python);
            command.arg(repository::root().join("python/train_step_torch.py"));
            peers.push(measure_once(command, work, threads)?);
        }
    }
    compare(work.name(), work.batch(), &ours, &peers)
}

fn measure_once(mut command: Command, work: Work, threads: usize) -> Result<Measurement> {
    command
        .args(["--work", work.name()])
        .args(["--batch", &work.batch().to_string()])
        .args(["--threads", &threads.to_string()])
        .args(["--steps", &work.steps().to_string()])
        .arg("--json");
    let shown = repository::shown(&command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    ensure!(
        output.status.success(),
        "`{shown}` failed ({})",
        output.status
    );
    Measurement::parse(&String::from_utf8_lossy(&output.stdout)).with_context(|| shown)
}

/// Builds our side and asks cargo where it is.
fn build_example() -> Result<PathBuf> {
    let mut command = repository::cargo();
    command
        .args(["build", "--release", "--package", "eqco-models"])
        .args(["--example", "train_step", "--message-format=json"])
        .stderr(Stdio::inherit());
    let output = command.output().context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "the example train_step of eqco-models does not build"
    );
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages).context("cargo did not say where the example is")
}

/// The program that cargo's messages name last.
fn executable(messages: &str) -> Option<PathBuf> {
    let of_line = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    messages.lines().filter_map(of_line).next_back()
}

fn table_head() -> String {
    format!(
        "{:<14} {:>9} {:>9} {:>7} {:>12} {:>12} {:>7} {:>8}",
        "work", "precision", "family", "threads", "ours img/s", "peer img/s", "ratio", "memory"
    )
}

fn table_line(comparison: &Comparison) -> String {
    let number = |value: Option<f64>, digits: usize| match value {
        Some(value) => format!("{value:.digits$}"),
        None => "-".to_owned(),
    };
    format!(
        "{:<14} {:>9} {:>9} {:>7} {:>12} {:>12} {:>7} {:>8}",
        comparison.work,
        comparison.precision,
        comparison.family,
        comparison.threads,
        number(Some(comparison.ours), 1),
        number(comparison.peer, 1),
        number(comparison.ratio, 2),
        number(comparison.peak_memory_ratio, 2),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_found_in_the_messages_of_cargo() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/t/release/examples/train_step"}
{"reason":"build-finished","success":true}"#;
        let expected = PathBuf::from("/t/release/examples/train_step");
        assert_eq!(executable(messages), Some(expected));
        assert_eq!(executable(""), None);
    }

    #[test]
    fn table_lines_fit_their_head() {
        let comparison = Comparison {
            work: "resnet18-w16".to_owned(),
            precision: "f32".to_owned(),
            family: "portable".to_owned(),
            threads: 2,
            ours: 812.34,
            peer: Some(664.0),
            ratio: Some(1.2234),
            peak_memory_ratio: None,
        };
        let line = table_line(&comparison);
        assert_eq!(line.len(), table_head().len());
        assert!(
            line.ends_with("812.3        664.0    1.22        -"),
            "{line}"
        );
    }
}
