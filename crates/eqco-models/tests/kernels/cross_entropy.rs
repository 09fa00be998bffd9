//! Cross-entropy in closed form and against sums in double precision, by every family of kernels.

use candle_core::{DType, Device, Result, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::ops::cross_entropy::cross_entropy;
use eqco_models::tape::{Activation, Mode};

use crate::differentiate::{Differentiated, declare, differentiate};
use crate::families::{on_every_family, tape};
use crate::golden::values;

/// Entry by entry, within an absolute tolerance; NaN is near nothing.
pub fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found} {expected}");
    }
}

fn tensor(values: &[f32], shape: (usize, usize)) -> Result<Tensor> {
    Tensor::from_vec(values.to_vec(), shape, &Device::Cpu)
}

/// Loss and gradient of logits `[N, labels / N]`, for a gradient from above of `outer`.
fn pass(logits: &[f32], labels: &[u32], outer: f32) -> Result<Differentiated> {
    let (_, none) = declare(|_| Ok(()))?;
    let rows = labels.len();
    let logits = tensor(logits, (rows, logits.len() / rows))?;
    let from_above = |shape: &[usize]| Tensor::full(outer, shape, &Device::Cpu);
    differentiate(&none, &[logits], from_above, &|tape, x| {
        cross_entropy(tape, &x[0], labels)
    })
}

/// Mean of ln Σ exp(x) − x of the label, and (softmax − one at the label) · outer / N.
fn reference(logits: &[f32], labels: &[u32], outer: f64) -> (f64, Vec<f64>) {
    let rows = labels.len();
    let (mut loss, mut gradient) = (0.0, Vec::new());
    for (row, &label) in logits.chunks_exact(logits.len() / rows).zip(labels) {
        let row: Vec<f64> = row.iter().copied().map(f64::from).collect();
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = row.iter().map(|x| (x - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        loss += sum.ln() + (largest - row[label as usize]);
        for (class, power) in powers.iter().enumerate() {
            let hit = f64::from(u8::from(class == label as usize));
            gradient.push((power / sum - hit) * outer / rows as f64);
        }
    }
    (loss / rows as f64, gradient)
}

/// Numbers from −`spread` to `spread` in 2,001 steps, and labels.
fn problem(rows: usize, classes: usize, spread: f32) -> (Vec<f32>, Vec<u32>) {
    let number = |at: usize| ((at * 7919 + at * at % 613) % 2001) as f32 / 1000.0 - 1.0;
    let logits = (0..rows * classes).map(|at| number(at) * spread).collect();
    let labels = (0..rows).map(|row| (row * 31 % classes) as u32).collect();
    (logits, labels)
}

#[test]
fn cross_entropy_by_hand() -> Result<()> {
    on_every_family(|| {
        // exp is 1, 2, 5 and 1, 1, 2: softmax 1/8, 2/8, 5/8 and 1/4, 1/4, 2/4.
        let (two, five) = (2f32.ln(), 5f32.ln());
        let pass = pass(&[0.0, two, five, 0.0, 0.0, two], &[1, 2], 2.0)?;
        let loss = (4f64.ln() + 2f64.ln()) / 2.0;
        assert_near(&values(&pass.output)?, &[loss], 1e-6);
        let gradient = [0.125, -0.75, 0.625, 0.25, 0.25, -0.5];
        assert_near(&values(&pass.inputs[0])?, &gradient, 1e-6);
        Ok(())
    })
}

#[test]
fn cross_entropy_of_huge_logits_is_finite() -> Result<()> {
    on_every_family(|| {
        let pass = pass(&[3e38, -3e38, 1e30, 1e30], &[0, 1], 1.0)?;
        // The first row is certain and right, the second undecided.
        assert_near(&values(&pass.output)?, &[2f64.ln() / 2.0], 1e-6);
        assert_near(&values(&pass.inputs[0])?, &[0.0, 0.0, 0.25, -0.25], 1e-7);
        Ok(())
    })
}

/// Exponentials are off by 2^-24 of themselves and by that of their exponent, which at most 40 here weighs down: both reach the
/// loss through a logarithm, and the gradient as a share of 1.
#[test]
fn odd_shapes_agree_with_double_precision() -> Result<()> {
    on_every_family(|| {
        for (rows, classes) in [
            (1, 2),
            (3, 5),
            (9, 31),
            (8, 32),
            (70, 33),
            (5, 1000),
            (200, 10),
        ] {
            for (spread, outer) in [(0.5, 1.0), (20.0, -3.0)] {
                let (logits, labels) = problem(rows, classes, spread);
                let (loss, gradient) = reference(&logits, &labels, f64::from(outer));
                let pass = pass(&logits, &labels, outer)?;
                assert_near(&values(&pass.output)?, &[loss], 3e-7 * (1.0 + loss));
                let tolerance = 3e-7 * f64::from(outer.abs()) / rows as f64;
                assert_near(&values(&pass.inputs[0])?, &gradient, tolerance);
            }
        }
        Ok(())
    })
}

#[test]
fn equal_logits_give_the_logarithm_of_the_classes() -> Result<()> {
    on_every_family(|| {
        for classes in [1, 2, 10, 64, 1000] {
            let pass = pass(&vec![-7.5; 3 * classes], &[0, 0, 0], 1.0)?;
            assert_near(&values(&pass.output)?, &[(classes as f64).ln()], 1e-6);
            let share = 1.0 / classes as f64;
            let hit = |at: usize| f64::from(u8::from(at.is_multiple_of(classes)));
            let expected: Vec<f64> = (0..3 * classes).map(|at| (share - hit(at)) / 3.0).collect();
            assert_near(&values(&pass.inputs[0])?, &expected, 3e-8);
        }
        Ok(())
    })
}

#[test]
fn what_is_added_to_a_row_changes_no_bit() -> Result<()> {
    on_every_family(|| {
        let (logits, labels) = problem(6, 45, 8.0);
        // In 64ths, which a sum with 4,096 keeps.
        let logits: Vec<f32> = logits.iter().map(|x| (x * 64.0).round() / 64.0).collect();
        let moved: Vec<f32> = logits.iter().map(|x| x + 4096.0).collect();
        let (plain, moved) = (pass(&logits, &labels, 1.0)?, pass(&moved, &labels, 1.0)?);
        assert_eq!(values(&plain.output)?, values(&moved.output)?);
        assert_eq!(values(&plain.inputs[0])?, values(&moved.inputs[0])?);
        Ok(())
    })
}

#[test]
fn a_logit_that_is_no_number_is_not_hidden() -> Result<()> {
    on_every_family(|| {
        let pass = pass(&[0.0, f32::NAN, 1.0, 0.0, 2.0, 1.0], &[0, 1], 1.0)?;
        assert!(values(&pass.output)?[0].is_nan());
        let gradient = values(&pass.inputs[0])?;
        assert!(
            gradient[..3].iter().all(|value| value.is_nan()),
            "{gradient:?}"
        );
        assert!(
            gradient[3..].iter().all(|value| value.is_finite()),
            "{gradient:?}"
        );
        Ok(())
    })
}

#[test]
fn a_pass_that_does_not_record_has_a_loss_and_no_backward_pass() -> Result<()> {
    on_every_family(|| {
        let mut tape = tape(Mode::Evaluation, &BufferPool::new(&Device::Cpu));
        let logits = Activation::constant(&Tensor::zeros((1, 2), DType::F32, &Device::Cpu)?)?;
        let loss = cross_entropy(&mut tape, &logits, &[0])?;
        assert_near(&values(&loss.to_tensor()?)?, &[2f64.ln()], 1e-6);
        Ok(())
    })
}
