//! The checks that `gpu-check` makes of every kernel, with CUDA's kernels emulated, and whether they find what is wrong.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use eqco_models::backend::Backend;
use eqco_models::cuda::Cuda;
use eqco_train::gpu_check::kernels::{Kernel, KernelCheck, Place, Quantity, compare};

/// The emulator takes a tenth of a microsecond or more for a thread.
const MOST_VALUES: usize = 6_000;

/// CUDA's kernels in the emulator; `None`, and a line that says so, in a build without it.
fn emulated() -> Option<Backend> {
    let cuda = Cuda::emulated();
    if let Err(error) = &cuda {
        eprintln!("NOT RUN: {error}");
    }
    Some(Backend::Cuda(Arc::new(cuda.ok()?)))
}

fn on_the_cpu(backend: &Backend) -> Place<'_> {
    Place {
        device: &Device::Cpu,
        backend,
    }
}

fn all_checks(seed: u64) -> Vec<(Kernel, KernelCheck)> {
    let of_one = |kernel: Kernel| {
        let checks = kernel.checks(seed, MOST_VALUES).into_iter();
        checks.map(move |check| (kernel, check))
    };
    Kernel::ALL.into_iter().flat_map(of_one).collect()
}

#[test]
fn emulated_kernels_pass_every_check_in_poisoned_memory() -> Result<()> {
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    let mut failures = Vec::new();
    for (kernel, check) in all_checks(1) {
        let comparison = check.run(on_the_cpu(&cuda))?;
        println!(
            "{} {}: {:.1e} of {:.0e} ({})",
            kernel.name(),
            check.name,
            comparison.distance,
            comparison.bound,
            comparison.quantity
        );
        if !comparison.passed() {
            failures.push((kernel, check.name, comparison));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    Ok(())
}
