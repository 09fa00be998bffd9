//! Chores of this repository, as `cargo xtask VERB`: one file or folder a verb.
//!
//! Nothing here depends on the product's crates, so that a verb still builds when they do not.

mod bench;
mod check_cuda;
mod ci;
mod cuda_toolchain;
mod fetch;
mod fuzz;
mod golden;
mod python;
mod repository;
mod tidy;
mod unix_files;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Download data sets into data/fetched, checked and unpacked
    Fetch(fetch::Arguments),
    /// Every cheap check: formatting, lints, documentation, tidy
    Ci,
    /// Lint the code for GPUs, which needs neither GPU nor CUDA
    CheckCuda,
    /// Install what building with feature cuda needs: Linux, x86-64, no root
    CudaToolchain(cuda_toolchain::Arguments),
    /// This repository's own rules
    Tidy,
    /// Random inputs for everything that reads files
    Fuzz(fuzz::Arguments),
    /// Compare speed and memory with other libraries
    #[command(subcommand)]
    Bench(bench::Verb),
    /// Write the stored reference values of other libraries anew
    Golden(golden::Arguments),
}

fn main() -> ExitCode {
    let outcome = match CommandLine::parse().verb {
        Verb::Fetch(arguments) => fetch::run(&arguments),
        Verb::Ci => ci::run(),
        Verb::CheckCuda => check_cuda::run(),
        Verb::CudaToolchain(arguments) => cuda_toolchain::run(&arguments),
        Verb::Tidy => tidy::run(),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Bench(verb) => bench::run(&verb),
        Verb::Golden(arguments) => golden::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
