//! `cargo xtask ci`: everything cheap that a change must pass, besides `cargo test`.
//!
//! All steps use the dev profile and the default features, so they share what the tests have built.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{repository, tidy};

/// One check and how it is carried out.
struct Step {
    name: &'static str,
    check: fn() -> Result<()>,
}

const STEPS: [Step; 4] = [
    Step {
        name: "fmt",
        check: || cargo(&["fmt", "--all", "--check"]),
    },
    Step {
        name: "tidy",
        check: tidy::run,
    },
    Step {
        name: "clippy",
        check: || {
            let scope = ["clippy", "--workspace", "--all-targets", "--quiet"];
            cargo(&[&scope[..], &["--", "-D", "warnings"]].concat())
        },
    },
    Step {
        name: "doc",
        check: document,
    },
];

/// Runs every step, even after one has failed.
pub fn run() -> Result<()> {
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for step in &STEPS {
        eprintln!("== {}", step.name);
        let start = Instant::now();
        let outcome = (step.check)();
        lines.push(summary_line(step.name, outcome.is_ok(), start.elapsed()));
        if let Err(error) = outcome {
            eprintln!("{error:#}");
            failed.push(step.name);
        }
    }
    println!("{}", lines.join("\n"));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn summary_line(name: &str, passed: bool, time: Duration) -> String {
    let verdict = if passed { "ok" } else { "FAILED" };
    format!("{name:8} {verdict:8} {:6.1} s", time.as_secs_f64())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    repository::run(repository::cargo().args(arguments))
}

fn document() -> Result<()> {
    let mut command = repository::cargo();
    command
        .args(["doc", "--workspace", "--no-deps", "--quiet"])
        .env("RUSTDOCFLAGS", "-D warnings");
    repository::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_lines_up() {
        let passed = summary_line("fmt", true, Duration::from_millis(1240));
        let failed = summary_line("clippy", false, Duration::from_secs(61));
        assert_eq!(passed, "fmt      ok          1.2 s");
        assert_eq!(failed, "clippy   FAILED     61.0 s");
    }
}
