//! Every operation against float64 PyTorch.

use std::collections::HashMap;

use candle_core::{Result, Tensor};
use eqco_models::ops::average_pool::global_average_pool;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::ops::conv2d::conv2d;
use eqco_models::ops::linear::linear;
use eqco_models::ops::max_pool::max_pool;
use eqco_models::ops::normalize::l2_normalize;
use eqco_models::params::ParameterSet;
use eqco_models::tape::{Activation, Mode, Tape};

use crate::differentiate::{Differentiated, declare, differentiate, on_threads};
use crate::families::on_every_family;
use crate::golden::Golden;
use crate::hashed::{hashed, hashed_between};

/// Relative to the largest value; f32 has 6e-8, times the square root of the longest sum (a few hundred terms).
const TOLERANCE: f64 = 1e-5;

fn load(set: &ParameterSet, tensors: Vec<(&str, Tensor)>) -> Result<()> {
    let tensors: HashMap<String, Tensor> = tensors
        .into_iter()
        .map(|(name, tensor)| (name.to_string(), tensor))
        .collect();
    set.load_named("", &tensors)
}

fn output_gradient(case: &str) -> impl FnOnce(&[usize]) -> Result<Tensor> {
    let name = format!("{case}.output_gradient");
    move |shape| hashed(&name, shape)
}

/// Compares the output, the gradient of the first input and those of all parameters.
fn check(golden: &Golden, case: &str, pass: &Differentiated, tolerance: f64) -> Result<()> {
    golden.check(&format!("{case}.output"), &pass.output, tolerance)?;
    golden.check(
        &format!("{case}.input_gradient"),
        &pass.inputs[0],
        tolerance,
    )?;
    pass.parameters.iter().try_for_each(|(name, gradient)| {
        golden.check(&format!("{case}.{name}_gradient"), gradient, tolerance)
    })
}

/// Name, then batch, height, width, channels in, channels out, kernel, stride and padding, as in `golden_ops.py`.
const CONVOLUTIONS: [(&str, [usize; 8]); 22] = [
    ("3x3", [2, 5, 7, 4, 6, 3, 1, 1]),
    ("3x3_stride2_odd", [2, 9, 7, 4, 6, 3, 2, 1]),
    ("3x3_stride2_even", [2, 8, 6, 3, 5, 3, 2, 1]),
    ("3x3_channels_5_7", [3, 4, 6, 5, 7, 3, 1, 1]),
    ("3x3_no_padding", [2, 6, 5, 3, 4, 3, 1, 0]),
    ("1x1", [2, 5, 3, 6, 9, 1, 1, 0]),
    ("1x1_stride2", [2, 7, 5, 6, 8, 1, 2, 0]),
    ("7x7_stride2", [2, 15, 12, 3, 4, 7, 2, 3]),
    ("7x7_stride2_tiny_map", [2, 2, 1, 3, 4, 7, 2, 3]),
    ("3x3_tiny_map", [2, 1, 1, 4, 5, 3, 1, 1]),
    ("3x3_batch_1", [1, 6, 5, 4, 3, 3, 1, 1]),
    ("3x3_many_images", [37, 3, 2, 4, 5, 3, 1, 1]),
    ("3x3_many_bands", [3, 33, 29, 8, 12, 3, 1, 1]),
    ("3x3_stride2_many_bands", [1, 48, 40, 64, 8, 3, 2, 1]),
    ("1x1_many_bands", [2, 31, 33, 24, 10, 1, 1, 0]),
    ("3x3_channels_16_16", [2, 5, 9, 16, 16, 3, 1, 1]),
    ("3x3_channels_5_48", [2, 6, 7, 5, 48, 3, 1, 1]),
    ("3x3_channels_16_8", [2, 4, 5, 16, 8, 3, 1, 1]),
    ("3x3_channels_32_16_no_padding", [2, 7, 6, 32, 16, 3, 1, 0]),
    ("3x3_stride2_channels_6_32", [2, 11, 9, 6, 32, 3, 2, 1]),
    ("7x7_stride2_channels_3_16", [2, 17, 14, 3, 16, 7, 2, 3]),
    ("3x3_channels_32_48_large", [2, 61, 57, 32, 48, 3, 1, 1]),
];

/// Work is shared out by the number of threads, and where there are more of them than images another kernel may run.
#[test]
fn convolutions_agree_with_pytorch_on_any_number_of_threads() -> Result<()> {
    for threads in [1, 2, 5] {
        on_threads(threads, compare_convolutions)?;
    }
    Ok(())
}

fn compare_convolutions() -> Result<()> {
    let golden = Golden::load("conv2d")?;
    for (
        case,
        [
            batch,
            height,
            width,
            inputs,
            outputs,
            kernel,
            stride,
            padding,
        ],
    ) in CONVOLUTIONS
    {
        let (weight, set) = declare(|b| b.conv_weight("weight", outputs, inputs, kernel))?;
        let values = hashed(
            &format!("{case}.weight"),
            &[outputs, inputs, kernel, kernel],
        )?;
        load(&set, vec![("weight", values)])?;
        let images = hashed(&format!("{case}.input"), &[batch, height, width, inputs])?;
        let pass = differentiate(&set, &[images], output_gradient(case), &|tape, x| {
            conv2d(tape, &x[0], &weight, stride, padding)
        })?;
        check(&golden, case, &pass, TOLERANCE)?;
    }
    golden.assert_all_compared();
    Ok(())
}

struct BatchNormCase {
    name: &'static str,
    shape: &'static [usize],
    activate: Activate,
    residual: bool,
    /// Of the input.
    mean: f64,
    /// Of the input.
    deviation: f64,
    tolerance: f64,
}

impl BatchNormCase {
    const fn new(
        name: &'static str,
        shape: &'static [usize],
        activate: Activate,
        residual: bool,
    ) -> Self {
        Self {
            name,
            shape,
            activate,
            residual,
            mean: 0.0,
            deviation: 1.0,
            tolerance: TOLERANCE,
        }
    }

    const fn with_input(self, mean: f64, deviation: f64) -> Self {
        Self {
            mean,
            deviation,
            ..self
        }
    }

    fn layer(&self) -> Result<(BatchNorm, ParameterSet)> {
        let channels = self.shape[self.shape.len() - 1];
        let (layer, set) = declare(|b| BatchNorm::new(b, "bn", channels, 1.0))?;
        let draw = |name: &str, low, high| {
            hashed_between(&format!("{}.{name}", self.name), &[channels], low, high)
        };
        load(
            &set,
            vec![
                ("bn.weight", draw("weight", 0.5, 1.5)?),
                ("bn.bias", draw("bias", -1.0, 1.0)?),
                (
                    "bn.running_mean",
                    draw("running_mean", self.mean - 1.0, self.mean + 1.0)?,
                ),
                ("bn.running_var", draw("running_var", 0.5, 1.5)?),
            ],
        )?;
        Ok((layer, set))
    }

    /// The input and, if there is one, the residual.
    fn inputs(&self) -> Result<Vec<Tensor>> {
        let spread = self.deviation * 3f64.sqrt();
        let mut inputs = vec![hashed_between(
            &format!("{}.input", self.name),
            self.shape,
            self.mean - spread,
            self.mean + spread,
        )?];
        if self.residual {
            inputs.push(hashed(&format!("{}.residual", self.name), self.shape)?);
        }
        Ok(inputs)
    }

    fn check(&self, golden: &Golden) -> Result<()> {
        let (layer, set) = self.layer()?;
        let forward =
            |tape: &mut Tape, x: &[Activation]| layer.forward(tape, &x[0], x.get(1), self.activate);
        let check = |name: &str, found: &Tensor| {
            golden.check(&format!("{}.{name}", self.name), found, self.tolerance)
        };
        let inputs = self.inputs()?;

        let pool = eqco_models::buffer::BufferPool::new(&candle_core::Device::Cpu);
        let constants = inputs
            .iter()
            .map(Activation::constant)
            .collect::<Result<Vec<_>>>()?;
        let evaluated = forward(
            &mut crate::families::tape(Mode::Evaluation, &pool),
            &constants,
        )?;
        check("evaluated", &evaluated.to_tensor()?)?;

        let pass = differentiate(&set, &inputs, output_gradient(self.name), &forward)?;
        check("output", &pass.output)?;
        check("input_gradient", &pass.inputs[0])?;
        if self.residual {
            check("residual_gradient", &pass.inputs[1])?;
        }
        check("weight_gradient", pass.parameter("bn.weight"))?;
        check("bias_gradient", pass.parameter("bn.bias"))?;
        check("running_mean", set.buffers()[0].value())?;
        check("running_var", set.buffers()[1].value())
    }
}

#[test]
fn batch_norms_agree_with_pytorch() -> Result<()> {
    on_every_family(|| {
        use Activate::{Linear, Relu};
        let golden = Golden::load("batch_norm")?;
        let cases = [
            BatchNormCase::new("linear_3", &[2, 5, 7, 3], Linear, false),
            BatchNormCase::new("relu_5", &[2, 5, 4, 5], Relu, false).with_input(0.5, 1.0),
            BatchNormCase::new("residual_24", &[2, 3, 5, 24], Linear, true).with_input(-0.5, 2.0),
            BatchNormCase::new("residual_relu_40", &[1, 3, 5, 40], Relu, true),
            BatchNormCase::new("relu_64", &[3, 2, 2, 64], Relu, false),
            BatchNormCase::new("head_7", &[9, 7], Relu, false),
            BatchNormCase::new("relu_24_many_tasks", &[4, 19, 23, 24], Relu, false)
                .with_input(0.25, 1.0),
            BatchNormCase::new("residual_relu_40_many_tasks", &[2, 19, 23, 40], Relu, true),
            BatchNormCase {
                // f32 keeps a value near 1,000 to 3e-5, that is 3e-4 deviations; scale·x + shift rounds three times.
                tolerance: 1e-3,
                ..BatchNormCase::new("large_mean_24", &[2, 5, 5, 24], Linear, false)
                    .with_input(1000.0, 0.1)
            },
        ];
        cases.iter().try_for_each(|case| case.check(&golden))?;
        golden.assert_all_compared();
        Ok(())
    })
}

#[test]
fn pools_agree_with_pytorch_also_in_ties() -> Result<()> {
    on_every_family(|| {
        let golden = Golden::load("pools")?;
        let (_, set) = declare(|_| Ok(()))?;
        let cases: [(&str, [usize; 4]); 5] = [
            ("odd", [2, 7, 5, 3]),
            ("even", [2, 6, 8, 2]),
            ("mixed", [1, 5, 8, 4]),
            ("one_pixel", [2, 1, 1, 3]),
            ("ties", [2, 7, 6, 3]),
        ];
        for (case, shape) in cases {
            let mut images = hashed(&format!("{case}.input"), &shape)?;
            if case == "ties" {
                // Levels −2, −1, 0 and 1: nearly every window holds its maximum more than once.
                images = (images * 2.0)?.floor()?;
            }
            let pass = differentiate(&set, &[images], output_gradient(case), &|tape, x| {
                max_pool(tape, &x[0])
            })?;
            check(&golden, case, &pass, TOLERANCE)?;
        }
        let images = hashed("average.input", &[3, 5, 4, 7])?;
        let pass = differentiate(&set, &[images], output_gradient("average"), &|tape, x| {
            global_average_pool(tape, &x[0])
        })?;
        check(&golden, "average", &pass, TOLERANCE)?;
        golden.assert_all_compared();
        Ok(())
    })
}

#[test]
fn linear_layers_and_normalisation_agree_with_pytorch() -> Result<()> {
    on_every_family(|| {
        let golden = Golden::load("linear")?;
        for (case, rows, inputs, outputs, biased) in [
            ("biased", 5, 7, 3, true),
            ("plain", 33, 24, 10, false),
            ("one_row", 1, 6, 4, true),
        ] {
            let ((weight, bias), set) = declare(|b| {
                let weight = b.linear_weight("weight", outputs, inputs)?;
                let bias = biased
                    .then(|| b.bias("bias", outputs, inputs))
                    .transpose()?;
                Ok((weight, bias))
            })?;
            load(
                &set,
                vec![
                    (
                        "weight",
                        hashed(&format!("{case}.weight"), &[outputs, inputs])?,
                    ),
                    ("bias", hashed(&format!("{case}.bias"), &[outputs])?),
                ],
            )?;
            let x = hashed(&format!("{case}.input"), &[rows, inputs])?;
            let pass = differentiate(&set, &[x], output_gradient(case), &|tape, x| {
                linear(tape, &x[0], &weight, bias.as_ref())
            })?;
            check(&golden, case, &pass, TOLERANCE)?;
        }
        let (_, set) = declare(|_| Ok(()))?;
        let x = hashed("normalize.input", &[5, 37])?;
        let pass = differentiate(&set, &[x], output_gradient("normalize"), &|tape, x| {
            l2_normalize(tape, &x[0])
        })?;
        check(&golden, "normalize", &pass, TOLERANCE)?;
        golden.assert_all_compared();
        Ok(())
    })
}
