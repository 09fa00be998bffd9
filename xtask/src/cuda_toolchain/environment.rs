//! What a shell needs to know before it builds: `env.sh`, and the compiler that this names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::unix_files;

/// The file to source, in the folder of the toolchain.
pub const FILE: &str = "env.sh";
/// What candle's kernels are compiled for unless one says otherwise: data-centre GPUs of 2022.
const COMPUTE_CAPABILITY: u32 = 90;
const NVCC_FAST: &str = include_str!("nvcc_fast.sh");

/// The files, and where they go.
pub struct Environment {
    file: PathBuf,
    wrapper: PathBuf,
    text: String,
}

impl Environment {
    /// For the toolkit in the folder `toolkit`, of the toolchain in `folder`; both are absolute.
    ///
    /// Refused are folders that no search path of a shell can hold.
    pub fn new(folder: &Path, toolkit: &Path) -> Result<Self> {
        let Some(home) = toolkit.to_str().filter(|text| !text.contains([':', '\n'])) else {
            bail!(
                "the toolchain's folder must be UTF-8 without colon and line break, since it goes into PATH; got {folder:?}\n\
                 hint: `cargo xtask cuda-toolchain FOLDER` takes another one"
            );
        };
        Ok(Self {
            file: folder.join(FILE),
            wrapper: toolkit.join("bin/nvcc-fast"),
            text: text(home, jobs()),
        })
    }

    /// Writes both files; true when one of them was not as it should be.
    pub fn write(&self) -> Result<bool> {
        let wrapper = unix_files::write_whole(&self.wrapper, NVCC_FAST, true)
            .with_context(|| format!("cannot write {}", self.wrapper.display()))?;
        let file = unix_files::write_whole(&self.file, &self.text, false)
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        Ok(wrapper || file)
    }
}

/// Half of the cores: cargo compiles Rust at the same time.
fn jobs() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).max(1)
}

fn text(home: &str, jobs: usize) -> String {
    format!(
        r#"# Written by `cargo xtask cuda-toolchain`; a shell reads it before it builds with feature cuda.
export CUDA_HOME={}
export CUDA_PATH="$CUDA_HOME"
export PATH="$CUDA_HOME/bin:$PATH"
export NVCC="$CUDA_HOME/bin/nvcc-fast"
# The generation of GPUs that candle's kernels are compiled for.
export CUDA_COMPUTE_CAP="${{CUDA_COMPUTE_CAP:-{COMPUTE_CAPABILITY}}}"
# Jobs of nvcc at the same time.
export CUDAFORGE_THREADS="${{CUDAFORGE_THREADS:-{jobs}}}"
"#,
        unix_files::quoted(home)
    )
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::process::Command;

    /// What a shell has in its environment after it has read `text`, with `before` in it already.
    fn sourced(text: &str, before: &[(&str, &str)]) -> String {
        let names = "$CUDA_HOME|$CUDA_PATH|$PATH|$NVCC|$CUDA_COMPUTE_CAP|$CUDAFORGE_THREADS";
        let mut shell = Command::new("/bin/sh");
        shell
            .env_clear()
            .env("PATH", "/usr/bin")
            .envs(before.iter().copied());
        let script = format!("{text}\nprintf %s \"{names}\"");
        String::from_utf8(shell.args(["-c", &script]).output().unwrap().stdout).unwrap()
    }

    #[test]
    fn a_shell_knows_all_that_a_build_needs() {
        let home = "/a b/it's/$x";
        let with =
            |numbers| format!("{home}|{home}|{home}/bin:/usr/bin|{home}/bin/nvcc-fast|{numbers}");
        assert_eq!(sourced(&text(home, 3), &[]), with("90|3"));
        let asked = [("CUDA_COMPUTE_CAP", "80"), ("CUDAFORGE_THREADS", "1")];
        assert_eq!(sourced(&text(home, 3), &asked), with("80|1"));
    }

    #[test]
    fn folders_that_do_not_fit_into_a_path_are_refused() {
        for folder in ["/a:b", "/a\nb"] {
            let folder = Path::new(folder);
            let told = Environment::new(folder, folder).err().unwrap().to_string();
            assert!(told.contains("without colon and line break"), "{told}");
            assert!(told.contains("hint: "), "{told}");
        }
    }

    #[test]
    fn the_wrapper_passes_all_on_and_hurries_where_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let nvcc = "#!/bin/sh\nprintf '%s|' \"$@\"\n";
        unix_files::write_whole(&folder.path().join("nvcc"), nvcc, true).unwrap();
        let wrapper = folder.path().join("nvcc-fast");
        unix_files::write_whole(&wrapper, NVCC_FAST, true).unwrap();
        let small = "--compress-mode=size";
        for (arguments, expected) in [
            (["--version", ""], "--version||".to_owned()),
            (["-c", "a b/cast.cu"], format!("{small}|-c|a b/cast.cu|")),
            (
                ["-c", "x/mmq_q4.cu"],
                format!("--Ofast-compile=max|{small}|-c|x/mmq_q4.cu|"),
            ),
            (
                ["-c", "src/moe/w.cu"],
                format!("--Ofast-compile=max|{small}|-c|src/moe/w.cu|"),
            ),
        ] {
            let told = unix_files::printed(Command::new(&wrapper).args(arguments));
            assert_eq!(told, expected, "{arguments:?}");
        }
    }
}
