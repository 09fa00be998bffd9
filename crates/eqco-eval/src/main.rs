//! `eqco-eval`: measures what an encoder has learnt. See `eqco-eval --help`.

mod commands;

use std::process::ExitCode;

use clap::Parser;
use eqco_data::DataError;
use eqco_eval::EvalError;
use eqco_eval::report::ReportError;

use commands::Cli;

fn main() -> ExitCode {
    match commands::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error
                .chain()
                .skip(1)
                .for_each(|cause| eprintln!("  because: {cause}"));
            if let Some(hint) = hint(&error) {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The hint of the first error in the chain that has one.
fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let eval = cause.downcast_ref().and_then(EvalError::hint);
        let report = || cause.downcast_ref().and_then(ReportError::hint);
        let data = || cause.downcast_ref().and_then(DataError::hint);
        eval.or_else(report).or_else(data)
    })
}
