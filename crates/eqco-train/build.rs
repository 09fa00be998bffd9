//! Tells the crate which commit it is built from, for the first line of every run's metrics.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Any change of a crate can turn a clean tree into a dirty one; a commit changes the log of HEAD.
    for path in ["../../crates", "../../.git/logs/HEAD"] {
        if Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    println!(
        "cargo:rustc-env=EQCO_COMMIT={}",
        commit().as_deref().unwrap_or("unknown")
    );
}

/// The abbreviated commit, with `-dirty` behind it if tracked files differ from it. `None` without git, or where the
/// folder above is not this workspace, as in a published package.
fn commit() -> Option<String> {
    if !Path::new("../../crates/eqco-train").exists() {
        return None;
    }
    let arguments = [
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ];
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let commit = text.trim();
    (output.status.success() && !commit.is_empty()).then(|| commit.to_owned())
}
