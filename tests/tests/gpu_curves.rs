//! The curves that `gpu-check` compares, with CUDA's kernels emulated and fewer steps.

use std::sync::Arc;

use anyhow::Result;
use candle_core::Device;
use eqco_models::Precision;
use eqco_models::backend::Backend;
use eqco_models::cuda::Cuda;
use eqco_models::optim::{OptimizerConfig, SgdConfig};
use eqco_train::gpu_check::Problem;
use eqco_train::gpu_check::curves::{compare_curves, furthest_window, losses, problem};

/// Two windows.
const STEPS: u64 = 20;

/// The problem of the check with images that take less time.
fn small() -> Problem {
    Problem {
        image_size: 8,
        batch_size: 16,
        ..problem()
    }
}

#[test]
fn emulated_kernels_follow_the_portable_ones_curve_and_a_wrong_update_does_not() -> Result<()> {
    let cuda = match Cuda::emulated() {
        Ok(cuda) => Backend::Cuda(Arc::new(cuda)),
        Err(error) => {
            eprintln!("NOT RUN: {error}");
            return Ok(());
        }
    };
    let curves = compare_curves(&small(), &Device::Cpu, &cuda, STEPS)?;
    println!("{curves:?}");
    let [wide, narrow] = &curves;
    assert!(wide.distance <= wide.bound, "{wide:?}");
    assert!(narrow.distance <= narrow.bound, "{narrow:?}");
    assert!(wide.bound > 0.0 && narrow.bound == wide.bound);
    let [first, last] = wide.first_and_last;
    assert!(last < first, "{wide:?}");

    // The same network with another momentum, as a wrong kernel would have it.
    let wrong = Problem {
        optimizer: OptimizerConfig::Sgd(SgdConfig {
            sgd_momentum: 0.5,
            ..SgdConfig::default()
        }),
        precision: Precision::F32,
        ..small()
    };
    let run = |problem: &Problem| losses(problem, &Device::Cpu, &Backend::Portable, STEPS);
    let distance = furthest_window(&run(&small())?, &run(&wrong)?)?;
    println!("{distance}");
    assert!(distance > wide.bound, "{distance}: {wide:?}");
    Ok(())
}
