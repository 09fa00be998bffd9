//! For build scripts: compiles the CUDA kernels of a crate.
//!
//! Feature `cuda` of the crate makes nvcc compile them to `kernels.fatbin` in the script's output folder; without it that file
//! is empty. Feature `cuda-emulation` makes a C++ compiler compile the same source for the CPU and links it; without a
//! compiler there is a warning, and `cfg(emulator)` is off.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What nvcc compiles for: machine code for data-centre GPUs of 2020 and 2022, which all of the generations of 2020 and 2022
/// can run, and an intermediate form that drivers translate for newer ones.
const GENERATIONS: [&str; 3] = [
    "arch=compute_80,code=sm_80",
    "arch=compute_90,code=sm_90",
    "arch=compute_90,code=compute_90",
];

/// Compiles `umbrella`, a `.cu` file that includes all kernels of the crate. Headers are looked for in `include`.
/// `runtime` is further C++ source for the emulator. `folder` is where all sources lie.
///
/// # Panics
/// Build scripts have no other way to fail: when nvcc is missing or refuses.
pub fn compile(folder: &Path, umbrella: &str, include: &[&Path], runtime: Option<&str>) {
    println!("cargo::rustc-check-cfg=cfg(emulator)");
    include
        .iter()
        .chain([&folder])
        .for_each(|folder| watch(folder));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("build scripts have OUT_DIR"));
    let fatbin = out.join("kernels.fatbin");
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        compile_for_gpus(&folder.join(umbrella), include, &fatbin);
    } else {
        std::fs::write(&fatbin, []).expect("the output folder can be written to");
    }
    if env::var_os("CARGO_FEATURE_CUDA_EMULATION").is_some() {
        emulate(folder, umbrella, include, runtime);
    }
}

/// Has the script run again when kernels or headers below `folder` change, and not when Rust does.
fn watch(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            watch(&path);
        } else if path
            .extension()
            .is_some_and(|end| ["cu", "cuh", "h", "cpp"].iter().any(|known| end == *known))
        {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

fn compile_for_gpus(source: &Path, include: &[&Path], fatbin: &Path) {
    let nvcc = nvcc();
    let mut command = Command::new(&nvcc);
    command.args(["-fatbin", "-O3", "-std=c++17", "-lineinfo"]);
    command.args(
        GENERATIONS
            .iter()
            .flat_map(|generation| ["-gencode", generation]),
    );
    for folder in include {
        command.arg("-I").arg(folder);
    }
    command.arg(source).arg("-o").arg(fatbin);
    match command.status() {
        Ok(status) if status.success() => (),
        Ok(status) => panic!(
            "{} could not compile {}: {status}",
            nvcc.display(),
            source.display()
        ),
        Err(error) => panic!(
            "feature `cuda` needs nvcc, found none at {}: {error}. Install CUDA 12 or 13, set NVCC or CUDA_HOME, or run \
             `cargo xtask cuda-toolchain`",
            nvcc.display()
        ),
    }
}

/// `NVCC`, else `bin/nvcc` below `CUDA_HOME` or `CUDA_PATH`, else what the path has.
fn nvcc() -> PathBuf {
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let below = |name: &str| env::var_os(name).map(|home| Path::new(&home).join("bin/nvcc"));
    env::var_os("NVCC")
        .map(PathBuf::from)
        .or_else(|| below("CUDA_HOME"))
        .or_else(|| below("CUDA_PATH"))
        .unwrap_or_else(|| PathBuf::from("nvcc"))
}

fn emulate(folder: &Path, umbrella: &str, include: &[&Path], runtime: Option<&str>) {
    let package = env::var("CARGO_PKG_NAME").expect("build scripts know their package");
    let library = format!("{}_kernels", package.replace('-', "_"));
    let compiled = cc::Build::new()
        .cpp(true)
        .cpp_set_stdlib(None)
        .cargo_metadata(false)
        .std("c++17")
        .opt_level(2)
        .includes(include)
        .define("EQCO_EMULATED", None)
        // The kernels are CUDA's by their names alone.
        .flag("-xc++")
        .flag("-Wno-unknown-pragmas")
        .flag("-fno-exceptions")
        .flag("-fno-rtti")
        .flag("-fno-threadsafe-statics")
        // `__fmul_rn` and its like promise that nothing is fused, on CPUs that could as well.
        .flag("-ffp-contract=off")
        // What CUDA leaves undefined too (addresses that are no multiple of 16, shifts that are too wide) ends the test.
        .flag("-fsanitize=undefined")
        .flag("-fsanitize-undefined-trap-on-error")
        .files(
            std::iter::once(umbrella)
                .chain(runtime)
                .map(|file| folder.join(file)),
        )
        .try_compile(&library);
    match compiled {
        Ok(()) => {
            let out = env::var("OUT_DIR").expect("build scripts have OUT_DIR");
            println!("cargo::rustc-link-search=native={out}");
            // Kernels are found by names that they register themselves; nothing else refers to them.
            println!("cargo::rustc-link-lib=static:+whole-archive={library}");
            println!("cargo::rustc-cfg=emulator");
        }
        Err(error) => println!(
            "cargo::warning=kernels are not emulated, so that their tests do not run: {error}"
        ),
    }
}
