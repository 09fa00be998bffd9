//! The commands of the program, one file each. Results go to stdout; everything else to stderr.

mod compute;
mod contrast;
mod embed;
mod finetune;
mod knn;
mod linear;
mod neighbors;
mod output;
mod report;
mod semi;
mod source;
mod subjects;
mod supervised;

use std::io;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Measure and use what a pre-trained encoder has learnt.
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
    /// Write representations into a file for other programs
    Embed(embed::EmbedArgs),
    /// Find the training images that are nearest to given images
    Neighbors(neighbors::NeighborsArgs),
    /// Train the whole network with labels, from the checkpoint's backbone
    Finetune(finetune::FinetuneArgs),
    /// Do the same with a share of the labels, and compare with a linear probe on these
    Semi(semi::SemiArgs),
}

/// Runs the command of a command line.
pub(crate) fn run(cli: &Cli) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(console::colors_enabled_stderr())
        .with_writer(io::stderr);
    log.without_time().with_target(false).init();
    match &cli.command {
        Command::Knn(arguments) => knn::run(arguments),
        Command::Linear(arguments) => linear::run(arguments),
        Command::Contrast(arguments) => contrast::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Embed(arguments) => embed::run(arguments),
        Command::Neighbors(arguments) => neighbors::run(arguments),
        Command::Finetune(arguments) => finetune::run(arguments),
        Command::Semi(arguments) => semi::run(arguments),
    }
}
