//! The program that stands in for nvcc, and what makes build scripts take it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::unix_files;

const BODY: &str = include_str!("stand_in_nvcc.sh");

/// Writes the program below `target`, and returns its path. Our own kernels go to `compiler`, where there is one.
///
/// Its folder is called after its content: build scripts watch the variable NVCC, and run again with another compiler.
pub fn write(target: &Path, compiler: Option<&Path>) -> Result<PathBuf> {
    ensure!(
        cfg!(unix),
        "the program that stands in for nvcc is a shell script, and this is not Unix\n\
         hint: run the check in a container"
    );
    let real = compiler.unwrap_or(Path::new("")).to_string_lossy();
    let script = format!("#!/bin/sh\nreal={}\n{BODY}", unix_files::quoted(&real));
    let digest = Sha256::digest(&script);
    let folder = target.join(format!(
        "nvcc-{:02x}{:02x}{:02x}",
        digest[0], digest[1], digest[2]
    ));
    let path = folder.join("nvcc");
    fs::create_dir_all(&folder)
        .and_then(|()| unix_files::write_whole(&path, &script, true))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Has all build scripts below `command` use `stand_in`, whatever the environment has.
pub fn put_first(command: &mut Command, stand_in: &Path) {
    let before = env::var_os("PATH").unwrap_or_default();
    let mut path = stand_in.parent().unwrap_or(stand_in).as_os_str().to_owned();
    path.push(":");
    path.push(before);
    command.env("NVCC", stand_in).env("PATH", path);
    // Watched by build scripts: with and without a toolkit the check is the same.
    for name in [
        "CUDA_HOME",
        "CUDA_PATH",
        "CUDA_ROOT",
        "CUDA_TOOLKIT_ROOT_DIR",
        "CUDNN_LIB",
    ] {
        command.env_remove(name);
    }
    command.env("CUDA_COMPUTE_CAP", "90");
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn run(nvcc: &Path, arguments: &[&str]) -> String {
        let folder = nvcc.parent().unwrap();
        unix_files::printed(Command::new(nvcc).args(arguments).current_dir(folder))
    }

    #[test]
    fn it_says_its_version_and_makes_empty_files() {
        let target = tempfile::tempdir().unwrap();
        let nvcc = write(target.path(), None).unwrap();
        let version = run(&nvcc, &["--version"]);
        let line = version.lines().nth(3).unwrap();
        assert_eq!(line.split(", ").nth(1), Some("release 13.0"));
        for (arguments, made) in [
            (&["-c", "-o", "a b.o", "x.cu"][..], "a b.o"),
            (
                &["--ptx", "--output-directory", ".", "src/cast.cu"],
                "cast.ptx",
            ),
            (
                &["-fatbin", "-O3", "src/kernels.cu", "-o", "k.fatbin"],
                "k.fatbin",
            ),
        ] {
            assert_eq!(run(&nvcc, arguments), "");
            let length = fs::metadata(nvcc.with_file_name(made)).unwrap().len();
            assert_eq!(length, 0, "{made}");
        }
    }

    #[test]
    fn our_kernels_go_to_the_real_one() {
        let target = tempfile::tempdir().unwrap();
        let real = target.path().join("it's nvcc");
        unix_files::write_whole(&real, "#!/bin/sh\necho real \"$@\"\n", true).unwrap();
        let nvcc = write(target.path(), Some(&real)).unwrap();
        assert_eq!(
            run(&nvcc, &["-fatbin", "k.cu", "-o", "k.fatbin"]),
            "real -Werror all-warnings -fatbin k.cu -o k.fatbin\n"
        );
        assert_eq!(run(&nvcc, &["--ptx", "k.cu", "-o", "k.ptx"]), "");
        assert_ne!(nvcc, write(target.path(), None).unwrap());
    }
}
