//! Programs that print what they measured as their last line.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::repository;

/// Work that processor time is counted for, so that other programs on the machine do not count.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Run {
    images: f64,
    cpu_seconds: f64,
}

/// Work that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Timed {
    images: f64,
    seconds: f64,
}

/// How a data set opened.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Opening {
    pub images: f64,
    pub seconds: f64,
    pub resident_bytes: f64,
    pub peak_bytes: f64,
}

impl Run {
    #[cfg(test)]
    pub fn new(images: f64, cpu_seconds: f64) -> Self {
        Self {
            images,
            cpu_seconds,
        }
    }

    /// Images per second.
    pub fn rate(self) -> f64 {
        self.images / self.cpu_seconds
    }
}

impl Timed {
    /// Images per second.
    pub fn rate(self) -> f64 {
        self.images / self.seconds
    }
}

/// Runs a program and reads its last line.
pub fn measure<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let shown = repository::shown(command);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start `{shown}`"))?;
    ensure!(
        output.status.success(),
        "`{shown}` failed ({})",
        output.status
    );
    last_line(&String::from_utf8_lossy(&output.stdout)).with_context(|| shown)
}

/// What the last line says, of positive figures alone.
fn last_line<T: DeserializeOwned>(output: &str) -> Result<T> {
    let last = output.lines().last().unwrap_or_default();
    let figures: serde_json::Map<String, serde_json::Value> = serde_json::from_str(last)
        .with_context(|| format!("expected figures in JSON, got `{last}`"))?;
    let positive = figures
        .values()
        .all(|figure| figure.as_f64().is_some_and(|figure| figure > 0.0));
    ensure!(positive, "expected positive figures, got `{last}`");
    serde_json::from_str(last).with_context(|| format!("expected other figures, got `{last}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_measurement() {
        let line = "warming up\n{\"images\": 512, \"cpu_seconds\": 2.0}\n";
        assert_eq!(last_line::<Run>(line).unwrap().rate(), 256.0);
        for bad in ["", "{}", "{\"images\": 0, \"cpu_seconds\": 2.0}"] {
            assert!(last_line::<Run>(bad).is_err(), "{bad}");
        }
        let timed = "{\"images\": 512, \"seconds\": 4}";
        assert_eq!(last_line::<Timed>(timed).unwrap().rate(), 128.0);
    }
}
