//! The share of its time that a run of pre-training waits for its loader.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Scratch;
use crate::repository;

/// Epochs, of which the first, which brings the files into memory, is left out.
const EPOCHS: usize = 3;

/// Encoders: the preset's own, and one so small that its steps are quick.
const WIDTHS: [&str; 2] = ["64", "16"];

/// Runs this part of the benchmark on a folder of photographs.
pub fn run(photographs: &Path) -> Result<()> {
    let mut build = repository::cargo();
    repository::run(build.args(["build", "--release", "--package", "eqco-train"]))?;
    let root = repository::root();
    let program = root.join("target/release/eqco-train");
    println!(
        "{:<32} {:>10} {:>22}",
        "pre-training at 64 x 64 pixels", "images/s", "waiting for data, %"
    );
    for width in WIDTHS {
        let folder = Scratch::new("wait")?;
        let run = folder.0.join("run");
        eprintln!("wait: {EPOCHS} epochs of ResNet-18 of width {width}");
        repository::run(&mut command(&program, photographs, &run, width))?;
        let path = run.join("metrics.jsonl");
        let metrics = fs::read_to_string(&path);
        let metrics = metrics.with_context(|| format!("cannot read {}", path.display()))?;
        let epochs = Epoch::all(&metrics)?;
        let (rate, share) = summary(&epochs[1..]);
        println!(
            "{:<32} {rate:>10.1} {:>22.2}",
            format!("SiMo, ResNet-18 of width {width}"),
            share * 100.0
        );
    }
    Ok(())
}

fn command(program: &Path, photographs: &Path, run: &Path, width: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--preset", "simo-cifar-r18", "--image-size", "64"])
        .args(["--batch-size", "64", "--width", width])
        .args(["--epochs", &EPOCHS.to_string(), "--negatives", "16"])
        .args(["--set", "run.final_table=false"])
        .args(["--set", "run.knn_every_epochs=0"])
        .args(["--set", "schedule.warmup_epochs=0"])
        .arg("--data")
        .arg(photographs)
        .arg("--out")
        .arg(run)
        .stdout(Stdio::null());
    command
}

/// What the line of an epoch says under `timing`.
#[derive(Debug, PartialEq)]
struct Epoch {
    seconds: f64,
    waited: f64,
    rate: f64,
}

impl Epoch {
    fn all(metrics: &str) -> Result<Vec<Self>> {
        let mut epochs = Vec::new();
        for line in metrics.lines() {
            let record: Value = serde_json::from_str(line).context("a line that is not JSON")?;
            if record["kind"] != "epoch" {
                continue;
            }
            let figure = |name: &str| {
                let figure = record["timing"][name].as_f64();
                figure.with_context(|| format!("an epoch without timing.{name}"))
            };
            epochs.push(Self {
                seconds: figure("seconds")?,
                waited: figure("data_wait_seconds")?,
                rate: figure("images_per_second")?,
            });
        }
        ensure!(
            epochs.len() == EPOCHS,
            "expected {EPOCHS} epochs, found {}",
            epochs.len()
        );
        Ok(epochs)
    }
}

/// Images per second, and the share of the time that was waited.
fn summary(epochs: &[Epoch]) -> (f64, f64) {
    let sum = |figure: fn(&Epoch) -> f64| epochs.iter().map(figure).sum::<f64>();
    let seconds = sum(|epoch| epoch.seconds);
    let images = sum(|epoch| epoch.rate * epoch.seconds);
    (images / seconds, sum(|epoch| epoch.waited) / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_all_epochs_but_the_first() {
        let line = |seconds: f64, waited: f64| {
            let rate = 100.0 / seconds;
            format!(
                "{{\"kind\": \"epoch\", \"timing\": {{\"seconds\": {seconds}, \"data_wait_seconds\": {waited}, \
                 \"images_per_second\": {rate}}}}}\n"
            )
        };
        let metrics = format!(
            "{{\"kind\": \"step\"}}\n{}{}{}",
            line(9.0, 5.0),
            line(4.0, 0.1),
            line(6.0, 0.1)
        );
        let epochs = Epoch::all(&metrics).unwrap();
        let (rate, share) = summary(&epochs[1..]);
        assert!((rate - 20.0).abs() < 1e-9 && (share - 0.02).abs() < 1e-9);
        let error = Epoch::all(&line(1.0, 0.0)).unwrap_err().to_string();
        assert_eq!(error, "expected 3 epochs, found 1");
    }
}
