//! The commands of the program, one file each. Results go to stdout; everything else goes to stderr.

mod doctor;
mod gpu_check;
mod inspect;
mod next_commands;
mod pack;
mod presets;
mod pretrain;
mod replay;
mod show_config;
mod sweep;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Command};

/// Runs the command of a command line.
///
/// # Errors
/// What the command says, for [`crate::hint::of`] to look at.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        None => pretrain::run(&cli.pretrain),
        Some(Command::Pretrain(arguments)) => pretrain::run(&arguments),
        Some(Command::Sweep(arguments)) => sweep::run(&arguments),
        Some(Command::Presets) => presets::run(),
        Some(Command::ShowConfig(arguments)) => show_config::run(&arguments),
        Some(Command::Inspect(arguments)) => inspect::run(&arguments),
        Some(Command::Pack(arguments)) => pack::run(&arguments),
        Some(Command::Replay(arguments)) => replay::run(&arguments),
        Some(Command::Doctor) => doctor::run(),
        Some(Command::GpuCheck(arguments)) => gpu_check::run(&arguments),
    }
}

/// Writes a result. Nobody listening any more (`| head`) is the reader's choice and no error.
fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
