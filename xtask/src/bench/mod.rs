//! `cargo xtask bench`: our speed and memory beside other libraries', on this machine, now.

mod loader;
mod pairing;
mod peer;
mod train;

use anyhow::Result;
use clap::Subcommand;

use crate::repository;

/// Compare speed and memory with other libraries.
#[derive(Subcommand)]
pub enum Verb {
    /// One training step, in alternation with PyTorch where there is one
    Train(train::Arguments),
    /// The loss kernels of eqco-core
    Loss,
    /// What loading images costs: views, sources, cold caches, large indices, what a run waits
    Loader(loader::Arguments),
    /// Install what we compare with into python/.venv
    SetupPeer,
}

/// Runs the verb.
pub fn run(verb: &Verb) -> Result<()> {
    match verb {
        Verb::Train(arguments) => train::run(arguments),
        Verb::Loss => cargo_bench("eqco-core"),
        Verb::Loader(arguments) => loader::run(arguments),
        Verb::SetupPeer => peer::set_up(),
    }
}

fn cargo_bench(package: &str) -> Result<()> {
    repository::run(repository::cargo().args(["bench", "--package", package]))
}
