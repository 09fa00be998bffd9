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
    for (kernel, check) in all_checks(0) {
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

/// `quantities` with one value of one of them moved by so much of the largest.
fn moved(quantities: &[Quantity], which: usize, share: f64) -> Result<Vec<Quantity>> {
    let mut moved = quantities.to_vec();
    let value = &moved[which].value;
    let mut values = value
        .to_dtype(DType::F64)?
        .flatten_all()?
        .to_vec1::<f64>()?;
    let largest = values
        .iter()
        .fold(0f64, |most, value| most.max(value.abs()));
    let place = values.len() / 2;
    // Zeros alone are compared as they are.
    values[place] += share * if largest == 0.0 { 1.0 } else { largest };
    moved[which].value =
        Tensor::from_vec(values, value.shape(), &Device::Cpu)?.to_dtype(value.dtype())?;
    Ok(moved)
}

/// A check that cannot fail is none: one wrong value among thousands must be found, in every quantity of every check.
#[test]
fn one_value_beyond_its_bound_or_not_a_number_fails_every_check() -> Result<()> {
    let portable = Backend::Portable;
    let mut quantities_seen = 0;
    for (kernel, check) in all_checks(2) {
        let expected = check.compute(on_the_cpu(&portable))?;
        assert!(compare(&expected, &expected)?.passed());
        for (which, quantity) in expected.iter().enumerate() {
            if quantity.value.dtype().is_int() {
                continue;
            }
            let name = format!("{} {}: {}", kernel.name(), check.name, quantity.name);
            // bf16 moves in steps of at most 2^-7 of a value.
            let beyond = 2.0 * quantity.bound + 1e-2;
            let comparison = compare(&expected, &moved(&expected, which, beyond)?)?;
            assert!(!comparison.passed(), "{name}: {comparison:?}");
            assert_eq!(comparison.quantity, quantity.name, "{name}");
            let comparison = compare(&expected, &moved(&expected, which, f64::NAN)?)?;
            assert!(!comparison.passed(), "{name}: {comparison:?}");
            quantities_seen += 1;
        }
        let shorter = &expected[..expected.len() - 1];
        assert!(compare(&expected, shorter).is_err());
    }
    assert!(quantities_seen > 400, "{quantities_seen}");
    Ok(())
}

/// Bounds are not so wide that a value just beyond passes, where f32 is compared.
#[test]
fn in_f32_a_few_parts_of_a_hundred_thousand_are_found() -> Result<()> {
    let portable = Backend::Portable;
    for kernel in [Kernel::Conv2d, Kernel::Linear, Kernel::Optimizers] {
        for check in kernel.checks(3, MOST_VALUES) {
            let expected = check.compute(on_the_cpu(&portable))?;
            if expected.iter().any(|q| q.bound > 3e-5) {
                continue;
            }
            let comparison = compare(&expected, &moved(&expected, 0, 3e-5)?)?;
            assert!(!comparison.passed(), "{}: {comparison:?}", check.name);
        }
    }
    Ok(())
}

/// GPUs offer TF32 for products of f32, whose factors have 11 binary digits.
#[test]
fn a_result_with_the_digits_of_tf32_is_found() -> Result<()> {
    let check = Kernel::Linear
        .checks(4, MOST_VALUES)
        .into_iter()
        .next()
        .expect("there is a linear layer");
    let expected = check.compute(on_the_cpu(&Backend::Portable))?;
    let rounded = |value: f32| f32::from_bits((value.to_bits() + 0x1000) & !0x1fff);
    let mut found = expected.clone();
    let output = &mut found[0].value;
    let values = output.flatten_all()?.to_vec1::<f32>()?;
    let values: Vec<f32> = values.into_iter().map(rounded).collect();
    *output = Tensor::from_vec(values, output.shape(), &Device::Cpu)?;
    let comparison = compare(&expected, &found)?;
    assert!(!comparison.passed(), "{comparison:?}");
    Ok(())
}

#[test]
fn shapes_follow_from_the_seed() {
    let names = |seed| -> Vec<String> {
        let checks = all_checks(seed).into_iter();
        checks.map(|(_, check)| check.name).collect()
    };
    assert_eq!(names(1), names(1));
    assert_ne!(names(1), names(2));
    assert!(names(1).len() > 100, "{}", names(1).len());
}
