//! `eqco-train`: pre-trains an image encoder. See `eqco-train --help`.

use std::process::ExitCode;

use clap::Parser;
use eqco_train::cli::Cli;
use eqco_train::{commands, hint};

fn main() -> ExitCode {
    match commands::run(Cli::parse()) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error}");
            error
                .chain()
                .skip(1)
                .for_each(|cause| eprintln!("  because: {cause}"));
            if let Some(hint) = hint::of(&error) {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}
