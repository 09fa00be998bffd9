//! Compiles the CUDA kernels of the loss.

use std::path::Path;

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("build scripts know their package");
    let include = Path::new(&root).join("src/cuda");
    println!("cargo::metadata=include={}", include.display());
    eqco_cuda_build::compile(
        &Path::new(&root).join("src"),
        "kernels.cu",
        &[&include],
        Some("cuda/emulator/emulator.cpp"),
    );
}
