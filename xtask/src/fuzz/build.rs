//! Building the fuzz targets with a stable toolchain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::repository;

/// What cargo-fuzz tells the compiler: counters for libFuzzer at every edge and comparison, and a sanitizer for addresses.
const FLAGS: [&str; 9] = [
    "--cfg fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Zsanitizer=address",
    "-Ccodegen-units=4",
];

/// Builds the targets and returns the folder with their programs.
pub fn build(root: &Path, targets: &[String]) -> Result<PathBuf> {
    let host = host()?;
    let mut command = cargo(root, "build")?;
    // With a target's name, build scripts and macros get none of the flags.
    command.args(["--release", "--target", &host]);
    for target in targets {
        command.args(["--bin", target]);
    }
    command
        .env("RUSTFLAGS", FLAGS.join(" "))
        // Sanitizers are unstable flags of the stable compiler.
        .env("RUSTC_BOOTSTRAP", "1");
    repository::run(&mut command).context(
        "the fuzz targets cannot be built\nhint: libFuzzer needs a C++ compiler, and the sanitizer Linux or macOS",
    )?;
    Ok(root.join("fuzz/target").join(host).join("release"))
}

/// Looks at the targets without any flag, and without the C++ part of libFuzzer.
pub fn check(root: &Path) -> Result<Command> {
    let mut command = cargo(root, "check")?;
    // A folder in which libFuzzer would lie compiled; nothing is linked.
    command.env("CUSTOM_LIBFUZZER_PATH", root.join("fuzz/libfuzzer.a"));
    Ok(command)
}

/// A command of cargo's in `fuzz/`, with the versions that the repository's own `Cargo.lock` names.
fn cargo(root: &Path, verb: &str) -> Result<Command> {
    let fuzz = root.join("fuzz");
    let lock = fuzz.join("Cargo.lock");
    // What the targets need beyond that cargo adds to it, and drops what they do not; later it is left as it is, unless the
    // repository's has changed since.
    let (ours, theirs) = (root.join("Cargo.lock"), &lock);
    let time = |path: &Path| path.metadata().and_then(|about| about.modified()).ok();
    if time(theirs) < time(&ours) {
        fs::copy(&ours, theirs).with_context(|| format!("cannot write {}", lock.display()))?;
    }
    let mut command = repository::cargo();
    command
        .arg(verb)
        .arg("--manifest-path")
        .arg(fuzz.join("Cargo.toml"));
    command.arg("--target-dir").arg(fuzz.join("target"));
    Ok(command)
}

/// The name of the platform that programs are built for here.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    ensure!(
        output.status.success() && host.is_some(),
        "`rustc -vV` names no host"
    );
    Ok(host.unwrap_or_default().to_owned())
}
