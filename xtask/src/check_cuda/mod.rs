//! `cargo xtask check-cuda`: the code that features `cuda` and `nccl` bring in, linted on a machine without a GPU.
//!
//! Rust is only looked at, so that nothing needs to be linked, and a program that stands in for nvcc spares the minutes that
//! candle's kernels take. Our own kernels go through the real nvcc, where there is one, by the command of their build scripts.

mod compiler;
mod crates;
mod stand_in;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::repository;

/// Runs the verb.
pub fn run() -> Result<()> {
    let root = repository::root();
    let features = crates::features_for_gpus(&root)?;
    let compiler = compiler::find()?;
    let target = target_folder(&root);
    let stand_in = stand_in::write(&target, compiler.as_deref())?;
    repository::run(&mut lint(&features, &stand_in, &target))?;
    println!("clippy with features {}", features.join(", "));
    println!("{}", verdict(compiler.as_deref()));
    Ok(())
}

/// A folder of its own: the usual one would be built anew after each check.
fn target_folder(root: &Path) -> PathBuf {
    let usual = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root.join(usual).join("check-cuda")
}

fn lint(features: &[String], stand_in: &Path, target: &Path) -> Command {
    let mut command = repository::cargo();
    command.args(["clippy", "--all-targets", "--quiet", "--target-dir"]);
    command.arg(target);
    for feature in features {
        let (name, _) = feature.split_once('/').unwrap_or((feature, ""));
        command.args(["--package", name, "--features", feature]);
    }
    command.args(["--", "-D", "warnings"]);
    stand_in::put_first(&mut command, stand_in);
    command
}

fn verdict(compiler: Option<&Path>) -> String {
    match compiler {
        Some(nvcc) => format!("kernels: compiled by {}", nvcc.display()),
        None => "NOT RUN: kernels are not compiled, for there is no nvcc (`cargo xtask cuda-toolchain` installs one)"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_is_linted_with_the_feature() {
        let features = ["eqco-core/cuda".to_owned(), "eqco-models/nccl".to_owned()];
        let command = lint(&features, Path::new("/t/nvcc"), Path::new("/t"));
        let shown = repository::shown(&command);
        assert!(
            shown.ends_with(
                "clippy --all-targets --quiet --target-dir /t --package eqco-core --features eqco-core/cuda \
                 --package eqco-models --features eqco-models/nccl -- -D warnings"
            ),
            "{shown}"
        );
    }

    #[test]
    fn what_is_not_run_is_said() {
        assert!(verdict(None).starts_with("NOT RUN: "));
        let told = verdict(Some(Path::new("/opt/cuda/bin/nvcc")));
        assert_eq!(told, "kernels: compiled by /opt/cuda/bin/nvcc");
    }
}
