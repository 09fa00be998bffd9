//! The emulator: what it computes, and what it finds.

use candle_core::{Device, Result, Tensor};
use half::bf16;

use super::{CudaError, KERNELS, Launch, Queue, address, address_mut};

/// The emulator, or `None` and a line that says so in a build without it.
fn emulator() -> Option<Queue> {
    let queue = Queue::emulated();
    if let Err(error) = &queue {
        eprintln!("NOT RUN: {error}");
    }
    queue.ok()
}

fn run(queue: &Queue, launch: &Launch) -> std::result::Result<(), CudaError> {
    // SAFETY: each test passes what its kernel wants.
    unsafe { queue.launch(KERNELS, launch) }
}

#[test]
fn threads_of_a_block_sum_through_shuffles_and_shared_memory() -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let source = Tensor::arange(0f32, 5.0 * 333.0, &Device::Cpu)?;
    let target = Tensor::zeros(5, candle_core::DType::F32, &Device::Cpu)?;
    for threads in [32, 96, 1024] {
        let launch = Launch::new("self_test_sum")
            .grid(5, 1, 1)
            .block(threads, 1)
            .arg(address(&source)?)
            .arg(address_mut(&target)?)
            .arg(333usize);
        run(&queue, &launch)?;
        // Sums of whole numbers below 2^24 are exact.
        let expected: Vec<f32> = (0..5)
            .map(|block| (333 * (333 * block + 166)) as f32)
            .collect();
        assert_eq!(target.to_vec1::<f32>()?, expected);
    }
    Ok(())
}

#[test]
fn a_missing_barrier_gives_wrong_numbers_and_a_missed_one_an_error() -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let reverse = |faulty: u32| -> Result<(std::result::Result<(), CudaError>, Vec<f32>)> {
        let values = Tensor::arange(0f32, 128.0, &Device::Cpu)?;
        let launch = Launch::new("self_test_reverse")
            .grid(2, 1, 1)
            .block(64, 1)
            .shared(64 * 4)
            .arg(address_mut(&values)?)
            .arg(faulty);
        Ok((run(&queue, &launch), values.to_vec1()?))
    };
    let expected: Vec<f32> = (0..64)
        .rev()
        .chain((64..128).rev())
        .map(|v| v as f32)
        .collect();
    let (result, values) = reverse(0)?;
    assert!(result.is_ok());
    assert_eq!(values, expected);
    // Shared memory that nobody has written yet is NaN.
    let (result, values) = reverse(1)?;
    assert!(result.is_ok());
    assert!(values.iter().any(|value| value.is_nan()));
    let error = reverse(2)?.0.unwrap_err().to_string();
    assert!(error.contains("barrier"), "{error}");
    Ok(())
}

#[test]
fn rounding_to_bf16_is_that_of_the_half_crate() -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let special = [
        0.0,
        -0.0,
        1.0,
        // Half-way between two values of bf16, below an even and an odd one.
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
        1e-41,
    ];
    let values: Vec<f32> = special
        .into_iter()
        .chain((0..247).map(|i| (i as f32 * 0.37).sin() * 10f32.powi(i % 60 - 30)))
        .collect();
    let source = Tensor::new(&values[..], &Device::Cpu)?;
    let target = Tensor::zeros(256, candle_core::DType::BF16, &Device::Cpu)?;
    let launch = Launch::new("self_test_round")
        .block(32, 1)
        .arg(address(&source)?)
        .arg(address_mut(&target)?);
    run(&queue, &launch)?;
    for (value, rounded) in values.iter().zip(target.to_vec1::<bf16>()?) {
        assert_eq!(
            bf16::from_f32(*value).to_bits(),
            rounded.to_bits(),
            "{value}"
        );
    }
    Ok(())
}

#[test]
fn what_cannot_be_launched_is_an_error_that_names_it() -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let error = run(&queue, &Launch::new("no_such_kernel")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("kernel no_such_kernel on a grid"),
        "{error}"
    );
    let error = run(&queue, &Launch::new("self_test_round").block(1025, 1)).unwrap_err();
    assert!(
        error.to_string().contains("more than a device runs"),
        "{error}"
    );
    assert!(run(&queue, &Launch::new("self_test_round").grid(0, 1, 1)).is_ok());
    Ok(())
}

#[test]
fn tensor_cores_multiply_matrices_and_transposed_ones() -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    // Whole numbers up to 12: products and their sums are exact in bf16 and f32.
    let matrix = |factor: usize| -> Result<Tensor> {
        let values: Vec<f32> = (0..256).map(|i| (i * factor % 13) as f32).collect();
        Tensor::from_vec(values, (16, 16), &Device::Cpu)
    };
    let (left, right) = (matrix(5)?, matrix(7)?);
    let target = Tensor::zeros((2, 16, 16), candle_core::DType::F32, &Device::Cpu)?;
    let (left_bf16, right_bf16) = (
        left.to_dtype(candle_core::DType::BF16)?,
        right.to_dtype(candle_core::DType::BF16)?,
    );
    let launch = Launch::new("self_test_products")
        .block(32, 1)
        .shared(2 * 16 * 24 * 2)
        .arg(address(&left_bf16)?)
        .arg(address(&right_bf16)?)
        .arg(address_mut(&target)?);
    run(&queue, &launch)?;
    let expected = Tensor::stack(&[left.matmul(&right.t()?)?, left.matmul(&right)?], 0)?;
    assert_eq!(target.to_vec3::<f32>()?, expected.to_vec3::<f32>()?);
    Ok(())
}

#[test]
fn copies_that_are_not_wanted_are_zeros_and_pairs_keep_their_order() -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let source = Tensor::arange(1f32, 129.0, &Device::Cpu)?;
    let target = Tensor::zeros(64, candle_core::DType::U32, &Device::Cpu)?;
    let launch = Launch::new("self_test_copy")
        .block(32, 1)
        .shared(128 * 4)
        .arg(address(&source)?)
        .arg(address_mut(&target)?);
    run(&queue, &launch)?;
    for (pair, got) in target.to_vec1::<u32>()?.into_iter().enumerate() {
        let value = |place: usize| {
            bf16::from_f32(if (place / 4).is_multiple_of(2) {
                place as f32 + 1.0
            } else {
                0.0
            })
        };
        let (first, second) = (value(2 * pair), value(2 * pair + 1));
        assert_eq!(
            got,
            u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16
        );
    }
    Ok(())
}
