//! `eqco-train`: pre-trains an image encoder. See `eqco-train --help`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use eqco_train::cli::Cli;
use eqco_train::{commands, hint};

fn main() -> ExitCode {
    match commands::run(Cli::parse()) {
        Ok(status) => status,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// The error, what caused it and what to do. A stderr that is closed leaves the exit status to tell.
fn report(error: &anyhow::Error) {
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr, "error: {error}");
    for cause in error.chain().skip(1) {
        let _ = writeln!(stderr, "  because: {cause}");
    }
    if let Some(hint) = hint::of(error) {
        let _ = writeln!(stderr, "hint: {hint}");
    }
}
