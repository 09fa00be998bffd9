//! The commands of the program, one file each. Results go to stdout; everything else to stderr.

mod contrast;
mod knn;
mod linear;
mod output;
mod report;
mod subjects;

use std::io;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Measure what a frozen, pre-trained encoder has learnt.
#[derive(Debug, Parser)]
#[command(name = "eqco-eval", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Classify test images by their nearest training images
    Knn(knn::KnnArgs),
    /// Train a linear classifier on the representation and measure it on test images
    Linear(linear::LinearArgs),
    /// Evaluate the loss of a trained encoder at other numbers of negatives
    Contrast(contrast::ContrastArgs),
    /// Write a page about runs: tables, charts, and pictures of what the best one has learnt
    Report(report::ReportArgs),
}

/// Runs the command of a command line.
pub(crate) fn run(cli: &Cli) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    log.without_time().with_target(false).init();
    match &cli.command {
        Command::Knn(arguments) => knn::run(arguments),
        Command::Linear(arguments) => linear::run(arguments),
        Command::Contrast(arguments) => contrast::run(arguments),
        Command::Report(arguments) => report::run(arguments),
    }
}
