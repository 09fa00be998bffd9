//! `eqco-train show-config`: the resolved configuration, and where each value comes from.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::ConfigArgs;

pub(super) fn run(arguments: &ConfigArgs) -> Result<ExitCode> {
    super::print(&arguments.resolve()?.annotated_toml())?;
    Ok(ExitCode::SUCCESS)
}
