//! `eqco-train presets`: what there is to start from.

use std::process::ExitCode;

use anyhow::Result;

use crate::config::Preset;

pub(super) fn run() -> Result<ExitCode> {
    let list: String = Preset::all().iter().map(entry).collect();
    super::print(&list)?;
    Ok(ExitCode::SUCCESS)
}

fn entry(preset: &Preset) -> String {
    let lines: String = preset
        .description()
        .iter()
        .map(|line| format!("  {line}\n"))
        .collect();
    format!("{}\n{lines}\n", preset.name)
}
