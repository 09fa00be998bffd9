//! Where the real nvcc is, if anywhere.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::cuda_toolchain;

/// `NVCC`, else that below `CUDA_HOME` or `CUDA_PATH`, else that of the path, else that of the installed toolchain.
///
/// An error when a variable names one that does not run, for it was asked for.
pub fn find() -> Result<Option<PathBuf>> {
    find_among(
        |name| std::env::var_os(name),
        &cuda_toolchain::default_nvcc(),
    )
}

fn find_among(
    variable: impl Fn(&str) -> Option<OsString>,
    installed: &Path,
) -> Result<Option<PathBuf>> {
    for (name, below) in [
        ("NVCC", ""),
        ("CUDA_HOME", "bin/nvcc"),
        ("CUDA_PATH", "bin/nvcc"),
    ] {
        let Some(asked) = variable(name).filter(|value| !value.is_empty()) else {
            continue;
        };
        let mut nvcc = PathBuf::from(asked);
        if !below.is_empty() {
            nvcc.push(below);
        }
        if !runs(&nvcc) {
            bail!(
                "{name} leads to {}, and `{0} --version` does not run\n\
                 hint: correct {name} or unset it; `cargo xtask cuda-toolchain` installs an nvcc",
                nvcc.display()
            );
        }
        return Ok(Some(nvcc));
    }
    let folders = variable("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&folders)
        .map(|folder| folder.join("nvcc"))
        .chain([installed.to_path_buf()]);
    Ok(candidates.find(|nvcc| nvcc.is_file() && runs(nvcc)))
}

fn runs(nvcc: &Path) -> bool {
    let status = Command::new(nvcc)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::unix_files;

    #[test]
    fn what_is_asked_for_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let path = |relative: &str| root.path().join(relative);
        let programs = ["/bin/true", "/usr/bin/true"].map(PathBuf::from);
        let succeeding = programs
            .into_iter()
            .find(|program| program.exists())
            .unwrap();
        for folder in ["home/bin", "path", "installed"] {
            std::fs::create_dir_all(path(folder)).unwrap();
            unix_files::link(&succeeding, &path(folder).join("nvcc")).unwrap();
        }
        let installed = path("installed/nvcc");
        let found = |variables: &[(&str, &str)]| {
            let lookup = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| path(value).into_os_string())
            };
            find_among(lookup, &installed)
        };
        let home = ("CUDA_HOME", "home");
        for (variables, expected) in [
            (
                &[home, ("PATH", "path"), ("NVCC", "path/nvcc")][..],
                "path/nvcc",
            ),
            (&[home, ("PATH", "path")], "home/bin/nvcc"),
            (&[("PATH", "path")], "path/nvcc"),
            (&[("PATH", "home")], "installed/nvcc"),
        ] {
            let nvcc = found(variables).unwrap();
            assert_eq!(nvcc, Some(path(expected)), "{variables:?}");
        }
        let told = found(&[("NVCC", "absent"), home]).unwrap_err().to_string();
        assert!(
            told.contains("NVCC leads to") && told.contains("hint: "),
            "{told}"
        );
        std::fs::remove_file(&installed).unwrap();
        assert_eq!(found(&[("PATH", "home")]).unwrap(), None);
    }
}
