//! The Python that has the packages our comparisons need.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::repository;

/// Names the interpreter to use, before any other.
pub const VARIABLE: &str = "EQCO_PYTHON";

/// What to do when no Python has the packages.
pub const HINT: &str = "`cargo xtask bench setup-peer` installs them into python/.venv, \
                        and EQCO_PYTHON names another interpreter";

/// The first of `$EQCO_PYTHON`, `python/.venv` and `python3` that can import all of `packages`.
///
/// `None` when none can; an error when `$EQCO_PYTHON` is set but cannot, for it was asked for.
pub fn with_packages(packages: &[&str]) -> Result<Option<PathBuf>> {
    let imports = format!("import {}", packages.join(", "));
    if let Some(asked) = std::env::var_os(VARIABLE) {
        let asked = PathBuf::from(asked);
        if can_run(&asked, &imports) {
            return Ok(Some(asked));
        }
        bail!(
            "{VARIABLE} is {}, which cannot `{imports}`\nhint: {HINT}",
            asked.display()
        );
    }
    let candidates = [environment_python(), PathBuf::from("python3")];
    let found = candidates
        .into_iter()
        .find(|python| can_run(python, &imports));
    Ok(found)
}

/// The folder of our own virtual environment.
pub fn environment() -> PathBuf {
    repository::root().join("python/.venv")
}

/// The interpreter of our own virtual environment, which need not exist.
pub fn environment_python() -> PathBuf {
    environment().join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    })
}

fn can_run(python: &PathBuf, statement: &str) -> bool {
    let status = Command::new(python)
        .args(["-c", statement])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
