//! The optional Python environment that holds the libraries we compare with.

use std::process::Command;

use anyhow::Result;

use crate::{python, repository};

/// Makes `python/.venv` and installs `python/requirements.txt` into it.
pub fn set_up() -> Result<()> {
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(python::environment());
    repository::run(&mut create)?;

    let mut install = Command::new(python::environment_python());
    install
        .args(["-m", "pip", "install", "--requirement"])
        .arg(repository::root().join("python/requirements.txt"));
    repository::run(&mut install)?;
    println!("installed into {}", python::environment().display());
    Ok(())
}
