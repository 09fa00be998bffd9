//! Compiles the CUDA kernels.

use std::path::Path;

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("build scripts know their package");
    let ours = Path::new(&root).join("src");
    let cores =
        std::env::var("DEP_EQCO_KERNELS_INCLUDE").expect("eqco-core says where its headers are");
    eqco_cuda_build::compile(
        &ours,
        "kernels.cu",
        &[Path::new(&cores), &ours.join("ops")],
        None,
    );
}
