//! `cargo xtask ci`: everything cheap that a change must pass, besides `cargo test`.
//!
//! All steps use the dev profile and the default features, so they share what the tests have built.
//!
//! The check of dependencies needs `cargo-deny`, and its advisories a network. Where there is neither, the other checks count, and
//! the summary says what has not been looked at: a check that was skipped never reads as one that has passed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{repository, tidy};

/// One check and how it is carried out.
struct Step {
    name: &'static str,
    check: fn() -> Result<Verdict>,
}

/// What came of a check that has not failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// It could not be carried out, or not all of it.
    Skipped(&'static str),
}

const STEPS: [Step; 5] = [
    Step {
        name: "fmt",
        check: || passed(cargo(&["fmt", "--all", "--check"])),
    },
    Step {
        name: "tidy",
        check: || passed(tidy::run()),
    },
    Step {
        name: "clippy",
        check: || {
            let scope = ["clippy", "--workspace", "--all-targets", "--quiet"];
            passed(cargo(&[&scope[..], &["--", "-D", "warnings"]].concat()))
        },
    },
    Step {
        name: "doc",
        check: || passed(document()),
    },
    Step {
        name: "deny",
        check: dependencies,
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
        lines.push(summary_line(
            step.name,
            outcome.as_ref().ok(),
            start.elapsed(),
        ));
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

fn summary_line(name: &str, verdict: Option<&Verdict>, time: Duration) -> String {
    let (word, note) = match verdict {
        Some(Verdict::Passed) => ("ok", String::new()),
        Some(Verdict::Skipped(what)) => ("SKIPPED", format!("  {what}")),
        None => ("FAILED", String::new()),
    };
    format!("{name:8} {word:8} {:6.1} s{note}", time.as_secs_f64())
}

fn passed(outcome: Result<()>) -> Result<Verdict> {
    outcome.map(|()| Verdict::Passed)
}

/// Advisories, licences, sources and bans of all dependencies, by the rules of `deny.toml`.
fn dependencies() -> Result<Verdict> {
    let installed = repository::cargo().args(["deny", "--version"]).output();
    if !installed.is_ok_and(|told| told.status.success()) {
        return Ok(Verdict::Skipped(
            "dependencies have NOT been checked: `cargo install --locked cargo-deny`; the workflow on GitHub checks them",
        ));
    }
    cargo(&[
        "deny",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "sources",
        "bans",
    ])?;
    let advisories = repository::cargo().args(["deny", "fetch"]).status();
    if !advisories.is_ok_and(|status| status.success()) {
        return Ok(Verdict::Skipped(
            "advisories have NOT been checked: their list cannot be fetched from here; licences, sources and bans are in order",
        ));
    }
    passed(cargo(&["deny", "--offline", "check", "advisories"]))
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
        let passed = summary_line("fmt", Some(&Verdict::Passed), Duration::from_millis(1240));
        let failed = summary_line("clippy", None, Duration::from_secs(61));
        let skipped = Verdict::Skipped("NOT checked");
        let skipped = summary_line("deny", Some(&skipped), Duration::from_millis(30));
        assert_eq!(skipped, "deny     SKIPPED     0.0 s  NOT checked");
        assert_eq!(passed, "fmt      ok          1.2 s");
        assert_eq!(failed, "clippy   FAILED     61.0 s");
    }
}
