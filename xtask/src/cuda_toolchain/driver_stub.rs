//! A library to link to in place of the driver, `libcuda.so.1`, which comes with a GPU and is in no wheel.
//!
//! Its name within is the driver's, so that a program finds the driver of the machine it runs on. Where there is none, and the
//! library path leads here, every function answers that it is a stub.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{repository, unix_files};

/// `CUDA_ERROR_STUB_LIBRARY` of cuda.h.
const ANSWER: u32 = 34;
/// Functions whose header is in no wheel.
const PROFILER: [&str; 2] = ["cuProfilerStart", "cuProfilerStop"];
const SONAME: &str = "libcuda.so.1";

/// `CC`, else `cc`, which must start.
pub fn compiler() -> Result<String> {
    let name = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&name)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        bail!(
            "there must be a C compiler, and `{name} --version` does not run\n\
             hint: install one (Debian's package is g++, which nvcc needs as well), or name it with CC"
        );
    }
    Ok(name)
}

/// Builds `lib/stubs/libcuda.so` from the names in `include/cuda.h`; true when it was not there.
pub fn build(toolkit: &Path, compiler: &str) -> Result<bool> {
    let header = toolkit.join("include/cuda.h");
    let text =
        fs::read_to_string(&header).with_context(|| format!("cannot read {}", header.display()))?;
    let folder = toolkit.join("lib/stubs");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (code, library) = (folder.join("stub.c"), folder.join(SONAME));
    let mut changed = unix_files::write_whole(&code, &source(&text), false)
        .with_context(|| format!("cannot write {}", code.display()))?;
    if changed || !library.is_file() {
        compile(compiler, &code, &library)?;
        changed = true;
    }
    changed |= unix_files::link(Path::new(SONAME), &folder.join("libcuda.so"))
        .with_context(|| format!("cannot make libcuda.so in {}", folder.display()))?;
    Ok(changed)
}

/// The library appears under its name when it is whole.
fn compile(compiler: &str, code: &Path, library: &Path) -> Result<()> {
    let beside = library.with_extension("part");
    let mut command = Command::new(compiler);
    command
        .args(["-shared", "-fPIC", "-w", "-O0"])
        .arg(format!("-Wl,-soname,{SONAME}"))
        .arg("-o")
        .args([&beside, code]);
    repository::run(&mut command).context("the driver's stub is not built")?;
    fs::rename(&beside, library).with_context(|| format!("cannot make {}", library.display()))
}

/// C code with a function for every name of the driver in the text of `cuda.h`.
///
/// Every word that begins like a function of the driver is taken, `#define cuMemAlloc cuMemAlloc_v2` gives two: a name too
/// many does no harm.
fn source(header: &str) -> String {
    let words =
        header.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let functions: BTreeSet<&str> = words
        .filter(|word| is_function(word))
        .chain(PROFILER)
        .collect();
    let line = |name: &&str| format!("int {name}(void) {{ return {ANSWER}; }}\n");
    functions.iter().map(line).collect()
}

fn is_function(word: &str) -> bool {
    let rest = word.strip_prefix("cu");
    rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "
        #define cuMemAlloc cuMemAlloc_v2 /* see ::cuMemFree. */
        typedef unsigned int cuuint32_t;
        CUresult CUDAAPI cuInit(unsigned int Flags);
        int mycuInit(void); enum cudaError_enum {};
    ";

    #[test]
    fn every_function_is_there_once() {
        let names = [
            "cuInit",
            "cuMemAlloc",
            "cuMemAlloc_v2",
            "cuMemFree",
            "cuProfilerStart",
            "cuProfilerStop",
        ];
        let expected = names.map(|name| format!("int {name}(void) {{ return 34; }}\n"));
        assert_eq!(source(HEADER), expected.concat());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn programs_link_to_it_and_are_told_that_it_is_a_stub() {
        let toolkit = tempfile::tempdir().unwrap();
        let path = |relative: &str| toolkit.path().join(relative);
        fs::create_dir(path("include")).unwrap();
        fs::write(path("include/cuda.h"), HEADER).unwrap();
        let compiler = compiler().unwrap();
        assert!(build(toolkit.path(), &compiler).unwrap());
        assert!(!build(toolkit.path(), &compiler).unwrap());

        fs::write(
            path("main.c"),
            "int cuInit(void); int main(void) { return cuInit(); }",
        )
        .unwrap();
        let stubs = path("lib/stubs");
        let mut command = Command::new(&compiler);
        command.args([
            path("main.c").as_os_str(),
            "-o".as_ref(),
            path("main").as_os_str(),
        ]);
        repository::run(command.arg("-L").arg(&stubs).arg("-lcuda")).unwrap();
        let status = Command::new(path("main"))
            .env("LD_LIBRARY_PATH", &stubs)
            .status();
        assert_eq!(status.unwrap().code(), Some(34));
        // The program asks for the driver's own name.
        let program = fs::read(path("main")).unwrap();
        assert!(program.windows(13).any(|bytes| bytes == b"libcuda.so.1\0"));
    }
}
