//! What to type when a run is over.

use std::path::Path;

use crate::epoch::Position;
use crate::run_folder::RunFolder;

/// After a run that was stopped.
pub(super) fn after_stop(position: &Position, folder: &RunFolder) -> String {
    let checkpoint = folder.checkpoint(position.next_step);
    let (train, eval) = (program("eqco-train"), program("eqco-eval"));
    format!(
        "stopped after step {} of {}; the checkpoint is complete: {}\n\
         to go on:        {train} --resume {}\n\
         to measure it:   {eval} knn {}\n\
         to start again:  {train} --config {}",
        position.next_step,
        position.total_steps(),
        checkpoint.display(),
        quoted(folder.path()),
        quoted(&checkpoint),
        quoted(&folder.config()),
    )
}

/// After a run that came to its end.
pub(super) fn after_end(folder: &RunFolder) -> String {
    let path = folder.path();
    format!(
        "run folder: {}\n\
         next, one part of the table with its protocol:  {} linear {}\n\
         and the same run without the paper's margin:    {} --config {} --alpha infonce\n",
        path.display(),
        program("eqco-eval"),
        quoted(path),
        program("eqco-train"),
        quoted(&folder.config()),
    )
}

/// How to call a program of this workspace: through cargo if that is how this one was started.
fn program(name: &str) -> String {
    if std::env::var_os("CARGO_MANIFEST_DIR").is_some() {
        format!("cargo run --release --bin {name} --")
    } else {
        name.to_owned()
    }
}

/// A path as a shell takes it, as short as it can be written from here.
fn quoted(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let text = path
        .strip_prefix(here)
        .unwrap_or(path)
        .display()
        .to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_shell() {
        assert_eq!(
            quoted(Path::new("/elsewhere/runs/demo-seed0")),
            "/elsewhere/runs/demo-seed0"
        );
        assert_eq!(quoted(Path::new("/my runs/a")), "'/my runs/a'");
        assert_eq!(quoted(Path::new("/it's")), r"'/it'\''s'");
        let here = std::env::current_dir().unwrap();
        assert_eq!(quoted(&here.join("runs/demo")), "runs/demo");
    }
}
