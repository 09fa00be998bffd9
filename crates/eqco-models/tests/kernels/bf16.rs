//! Operations on bf16 activations against the same operations in f32 on the same values.
//!
//! Kernels load, compute in f32 and store with one rounding, so that most results must be the f32 result rounded once, to
//! the bit. Where a gradient is added up in its bf16 tensor, the bound counts the roundings.

use candle_core::{DType, Device, Result, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::ops::average_pool::global_average_pool;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::ops::max_pool::max_pool;
use eqco_models::ops::relu::relu;
use eqco_models::params::ParameterSet;
use eqco_models::tape::{Activation, Gradients, Mode, Tape};

use crate::differentiate::{declare, in_exchange_shapes};
use crate::families::on_every_family;
use crate::golden::{bits, values};
use crate::hashed::{hashed, hashed_between};

/// Largest relative error of one rounding to bf16, which has 8 significant bits.
const UNIT: f64 = 1.0 / 256.0;

/// Two groups of samples, and channels that divide neither a vector nor a block of columns.
const SHAPE: [usize; 4] = [4, 9, 7, 20];

struct Pass {
    output: Tensor,
    inputs: Vec<Tensor>,
    parameters: Vec<(String, Tensor)>,
}

fn rounded(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_dtype(DType::BF16)?.to_dtype(DType::F32)
}

/// Runs `operation` on two inputs in `dtype` and propagates a gradient back; `magnitudes` takes its absolute values.
fn pass(
    set: &ParameterSet,
    dtype: DType,
    magnitudes: bool,
    operation: &impl Fn(&mut Tape, &[Activation]) -> Result<Activation>,
) -> Result<Pass> {
    let pool = BufferPool::new(&Device::Cpu);
    let mut tape = crate::families::tape(Mode::Training, &pool).with_batch_norm_group(Some(2));
    let inputs = ["first", "second"]
        .iter()
        .map(|name| {
            let values = rounded(&hashed_between(name, &SHAPE, -1.0, 3.0)?)?;
            tape.input(&values.to_dtype(dtype)?)
        })
        .collect::<Result<Vec<_>>>()?;
    let output = operation(&mut tape, &inputs)?;
    let mut gradient = rounded(&hashed("gradient", output.dims())?)?;
    if magnitudes {
        gradient = gradient.abs()?;
    }
    let mut gradients = Gradients::new(set)?;
    let wanted: Vec<_> = inputs.iter().collect();
    let gradient = gradient.to_dtype(output.dtype())?;
    let reached = tape.backward(&output, &gradient, &mut gradients, &wanted)?;
    Ok(Pass {
        output: output.to_tensor()?,
        inputs: reached.into_iter().flatten().collect(),
        parameters: in_exchange_shapes(set, &gradients)?,
    })
}

fn assert_rounded(found: &Tensor, exact: &Tensor, what: &str) -> Result<()> {
    let expected = if found.dtype() == DType::BF16 {
        rounded(exact)?
    } else {
        exact.clone()
    };
    assert_eq!(
        bits(&found.to_dtype(DType::F32)?)?,
        bits(&expected)?,
        "{what}"
    );
    Ok(())
}

/// Outputs, input gradients and parameter gradients are those of f32, rounded once where they are bf16.
fn assert_pass_rounded(
    name: &str,
    set: &ParameterSet,
    output_dtype: DType,
    operation: impl Fn(&mut Tape, &[Activation]) -> Result<Activation>,
) -> Result<()> {
    let found = pass(set, DType::BF16, false, &operation)?;
    let exact = pass(set, DType::F32, false, &operation)?;
    assert_eq!(found.output.dtype(), output_dtype, "{name}");
    assert_rounded(&found.output, &exact.output, name)?;
    assert_eq!(found.inputs.len(), exact.inputs.len());
    for (found, exact) in found.inputs.iter().zip(&exact.inputs) {
        assert_eq!(found.dtype(), DType::BF16, "{name}");
        assert_rounded(found, exact, name)?;
    }
    for ((parameter, found), (_, exact)) in found.parameters.iter().zip(&exact.parameters) {
        assert_eq!(found.dtype(), DType::F32, "{name}");
        assert_rounded(found, exact, parameter)?;
    }
    Ok(())
}

#[test]
fn results_are_those_of_f32_rounded_once() -> Result<()> {
    on_every_family(|| {
        let (norm, set) = declare(|b| BatchNorm::new(b, "norm", SHAPE[3], 1.5))?;
        let (_, none) = declare(|_| Ok(()))?;
        for activate in [Activate::Linear, Activate::Relu] {
            assert_pass_rounded("batch norm", &set, DType::BF16, |t, x| {
                norm.forward(t, &x[0], None, activate)
            })?;
            assert_pass_rounded("residual", &set, DType::BF16, |t, x| {
                norm.forward(t, &x[0], Some(&x[1]), activate)
            })?;
        }
        assert_pass_rounded("relu", &none, DType::BF16, |t, x| relu(t, &x[0]))?;
        assert_pass_rounded("average pool", &none, DType::F32, |t, x| {
            global_average_pool(t, &x[0])
        })
    })
}

/// |found − exact| ≤ roundings · UNIT · Σ|addends|, where the sum is the gradient of absolute values.
fn assert_within(roundings: f64, found: &Tensor, exact: &Tensor, magnitude: &Tensor) -> Result<()> {
    let found = values(&found.to_dtype(DType::F32)?)?;
    let mut largest: f64 = 0.0;
    for ((found, exact), magnitude) in found.iter().zip(values(exact)?).zip(values(magnitude)?) {
        let error = (found - exact).abs();
        assert!(
            error <= roundings * UNIT * magnitude,
            "{found} for {exact} of {magnitude}"
        );
        largest = largest.max(error);
    }
    assert!(largest > 0.0, "bf16 was not exercised");
    Ok(())
}

/// A pixel of a max pool is under at most four windows: four sums, each rounded.
#[test]
fn max_pool_is_exact_forward_and_rounds_four_sums_backward() -> Result<()> {
    on_every_family(|| {
        let (_, none) = declare(|_| Ok(()))?;
        let pool = |tape: &mut Tape, x: &[Activation]| max_pool(tape, &x[0]);
        let [found, exact, magnitude] = [
            pass(&none, DType::BF16, false, &pool)?,
            pass(&none, DType::F32, false, &pool)?,
            pass(&none, DType::F32, true, &pool)?,
        ];
        assert_rounded(&found.output, &exact.output, "max pool")?;
        assert_within(
            4.0,
            &found.inputs[0],
            &exact.inputs[0],
            &magnitude.inputs[0],
        )
    })
}

/// The gradients of two consumers are each rounded, and their sum is: a relu hands its gradient over, a pool adds into
/// what is there.
#[test]
fn a_bf16_input_used_twice_gets_the_rounded_sum() -> Result<()> {
    on_every_family(|| {
        let (norm, set) = declare(|b| BatchNorm::new(b, "norm", SHAPE[3], 1.0))?;
        let twice = |tape: &mut Tape, x: &[Activation]| {
            let branch = relu(tape, &x[0])?;
            let (left, right) = (
                global_average_pool(tape, &x[0])?,
                global_average_pool(tape, &branch)?,
            );
            norm.forward(tape, &left, Some(&right), Activate::Linear)
        };
        // Half of the gradients fall on both consumers; the sum may cancel, so the bound is relative to the largest.
        let found = pass(&set, DType::BF16, false, &twice)?.inputs.remove(0);
        let exact = pass(&set, DType::F32, false, &twice)?.inputs.remove(0);
        let largest = values(&exact)?.iter().fold(0f64, |m, v| m.max(v.abs()));
        let magnitude = Tensor::full(largest as f32, SHAPE.to_vec(), &Device::Cpu)?;
        assert_within(3.0, &found, &exact, &magnitude)
    })
}

#[test]
fn evaluation_normalises_bf16_with_running_statistics() -> Result<()> {
    on_every_family(|| {
        let (norm, _) = declare(|b| BatchNorm::new(b, "norm", SHAPE[3], 1.5))?;
        let x = rounded(&hashed("x", &SHAPE)?)?;
        let run = |dtype| -> Result<Tensor> {
            let mut tape = crate::families::tape(Mode::Evaluation, &BufferPool::new(&Device::Cpu));
            let x = Activation::constant(&x.to_dtype(dtype)?)?;
            norm.forward(&mut tape, &x, Some(&x), Activate::Relu)?
                .to_tensor()
        };
        assert_rounded(&run(DType::BF16)?, &run(DType::F32)?, "evaluation")
    })
}

/// A diverged run must show in bf16 too: neither the conversion nor a comparison may lose a NaN.
#[test]
fn a_nan_passes_through_bf16_operations() -> Result<()> {
    on_every_family(|| {
        let (norm, _) = declare(|b| BatchNorm::new(b, "norm", 4, 1.0))?;
        let mut image = hashed("image", &[2, 4, 4, 4])?
            .flatten_all()?
            .to_vec1::<f32>()?;
        image[21] = f32::NAN;
        let image = Tensor::from_vec(image, (2, 4, 4, 4), &Device::Cpu)?.to_dtype(DType::BF16)?;
        let x = Activation::constant(&image)?;
        let tape = &mut crate::families::tape(Mode::Training, &BufferPool::new(&Device::Cpu));
        for (name, output) in [
            ("batch norm", norm.forward(tape, &x, None, Activate::Relu)?),
            (
                "residual",
                norm.forward(tape, &x, Some(&x), Activate::Relu)?,
            ),
            ("max pool", max_pool(tape, &x)?),
            ("average pool", global_average_pool(tape, &x)?),
            ("relu", relu(tape, &x)?),
        ] {
            let found = values(&output.to_tensor()?.to_dtype(DType::F32)?)?;
            assert!(found.iter().any(|v| v.is_nan()), "{name} hides a NaN");
        }
        Ok(())
    })
}
