//! Layers of ResNet-50 on their own, forward and backward.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::ops::average_pool::global_average_pool;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::ops::conv2d::conv2d;
use eqco_models::ops::linear::linear;
use eqco_models::ops::max_pool::max_pool;
use eqco_models::params::ParameterBuilder;
use eqco_models::tape::{Activation, Gradients, Mode, Tape};

use super::{Scale, noise, seconds_per_call};
use crate::gpu_check::kernels::Place;
use crate::gpu_check::outcome::{Measurement, Outcome, Work};

/// Name of the batch norm's measurements, before the direction.
pub const BATCH_NORM: &str = "batch norm + ReLU 56x56x256";

/// Side, channels in and out, kernel and stride.
const CONVOLUTIONS: [[usize; 5]; 6] = [
    [224, 3, 64, 7, 2],
    [56, 256, 64, 1, 1],
    [56, 64, 64, 3, 1],
    [56, 128, 128, 3, 2],
    [14, 1024, 256, 1, 1],
    [7, 512, 512, 3, 1],
];

pub(super) fn measure(place: Place<'_>, scale: Scale) -> Result<Outcome> {
    let images = scale.of(256, 2);
    let side = |full: usize| scale.of(full, 7);
    let mut outcome = Outcome::default();
    let mut add = |name: &str, measured: Result<Vec<Measurement>>| match measured {
        Ok(measured) => outcome.measurements.extend(measured),
        Err(error) => {
            outcome.error.get_or_insert(format!("{name}: {error:#}"));
        }
    };
    for activation @ (name, _) in [
        (BATCH_NORM, false),
        ("batch norm + add + ReLU 56x56x256", true),
    ] {
        let shape = [images, side(56), side(56), scale.of(256, 8)];
        add(name, batch_norm(place, shape, activation));
    }
    for [full, inputs, outputs, kernel, stride] in CONVOLUTIONS {
        let name = format!("conv {kernel}x{kernel} s{stride} {inputs} to {outputs} at {full}");
        let [inputs, outputs] = [inputs, outputs].map(|count| scale.of(count, count.min(8)));
        let shape = [images, side(full), side(full), inputs];
        let measured = convolution(place, &name, shape, [outputs, kernel, stride]);
        add(&name, measured);
    }
    let shape = [images, side(112), side(112), scale.of(64, 8)];
    add("max pool", pool(place, "max pool 112x112x64", shape, true));
    let shape = [images, side(7), side(7), scale.of(2048, 8)];
    add(
        "average pool",
        pool(place, "average pool 7x7x2048", shape, false),
    );
    let sizes = [images, scale.of(2048, 8), scale.of(2048, 8)];
    add("linear", fully_connected(place, sizes));
    Ok(outcome)
}

/// Passes over an activation: statistics, then normalisation and output; backward two of input and gradient each, and one output.
fn batch_norm(
    place: Place<'_>,
    shape: [usize; 4],
    (name, with_residual): (&str, bool),
) -> Result<Vec<Measurement>> {
    let bytes = 2 * shape.iter().product::<usize>() as u64;
    // The residual is read. Backward the output is, for its mask, and the masked gradient is written.
    let (forward, backward) = if with_residual { (4, 7) } else { (3, 5) };
    let layer = Layer {
        name,
        place,
        inputs: vec![&shape; 1 + usize::from(with_residual)],
        dtype: DType::BF16,
        work: [Work::Bytes(forward * bytes), Work::Bytes(backward * bytes)],
    };
    layer.time(
        |builder| BatchNorm::new(builder, "norm", shape[3], 1.0),
        |tape, norm, x| norm.forward(tape, &x[0], x.get(1), Activate::Relu),
    )
}

fn convolution(
    place: Place<'_>,
    name: &str,
    shape @ [images, side, _, inputs]: [usize; 4],
    [outputs, kernel, stride]: [usize; 3],
) -> Result<Vec<Measurement>> {
    let pixels = images * side.div_ceil(stride).pow(2);
    let flops = (2 * pixels * outputs * kernel * kernel * inputs) as u64;
    let layer = Layer {
        name,
        place,
        inputs: vec![&shape],
        dtype: DType::BF16,
        work: [Work::FlopsInBf16(flops), Work::FlopsInBf16(2 * flops)],
    };
    layer.time(
        |builder| builder.conv_weight("weight", outputs, inputs, kernel),
        |tape, weight, x| conv2d(tape, &x[0], weight, stride, kernel / 2),
    )
}

fn pool(place: Place<'_>, name: &str, shape: [usize; 4], is_max: bool) -> Result<Vec<Measurement>> {
    let input = 2 * shape.iter().product::<usize>() as u64;
    // A quarter of the values, each with a byte for its place; or one f32 a map.
    let output = if is_max {
        3 * input / 8
    } else {
        4 * (shape[0] * shape[3]) as u64
    };
    let layer = Layer {
        name,
        place,
        inputs: vec![&shape],
        dtype: DType::BF16,
        work: [Work::Bytes(input + output); 2],
    };
    layer.time(
        |_| Ok(()),
        |tape, (), x| {
            if is_max {
                max_pool(tape, &x[0])
            } else {
                global_average_pool(tape, &x[0])
            }
        },
    )
}

fn fully_connected(
    place: Place<'_>,
    [rows, inputs, outputs]: [usize; 3],
) -> Result<Vec<Measurement>> {
    let shape = [rows, inputs];
    let flops = (2 * rows * inputs * outputs) as u64;
    let layer = Layer {
        name: "linear 256x2048 to 2048, f32",
        place,
        inputs: vec![&shape],
        dtype: DType::F32,
        work: [Work::FlopsInF32(flops), Work::FlopsInF32(2 * flops)],
    };
    layer.time(
        |builder| builder.linear_weight("weight", outputs, inputs),
        |tape, weight, x| linear(tape, &x[0], weight, None),
    )
}

/// What is timed.
struct Layer<'a> {
    name: &'a str,
    place: Place<'a>,
    /// Their shapes.
    inputs: Vec<&'a [usize]>,
    dtype: DType,
    /// Of a forward and of a backward pass.
    work: [Work; 2],
}

impl Layer<'_> {
    /// The backward pass is what both passes take more than the forward pass, less the copy of the output's gradient that the tape
    /// begins with.
    fn time<L>(
        &self,
        declare: impl Fn(&mut ParameterBuilder) -> candle_core::Result<L>,
        forward: impl Fn(&mut Tape, &L, &[Activation]) -> candle_core::Result<Activation>,
    ) -> Result<Vec<Measurement>> {
        let device = self.place.device;
        let mut builder = ParameterBuilder::new(0, device);
        let layer = declare(&mut builder)?;
        let mut gradients = Gradients::new(&builder.finish())?;
        let inputs = self.inputs.iter().map(|shape| {
            let values = noise(shape, self.place)?;
            Ok(values.to_dtype(self.dtype)?)
        });
        let inputs = inputs.collect::<Result<Vec<Tensor>>>()?;
        let pool = BufferPool::new(device);
        let pass = || -> Result<(Tape, Activation)> {
            let mut tape = self.tape(&pool);
            let inputs = inputs.iter().map(|input| tape.input(input));
            let inputs = inputs.collect::<candle_core::Result<Vec<_>>>()?;
            let output = forward(&mut tape, &layer, &inputs)?;
            Ok((tape, output))
        };
        let gradient = pass()?.1.to_tensor()?;
        let target = gradient.copy()?;
        let ahead = seconds_per_call(device, || pass().map(drop)).context("forward")?;
        let both = seconds_per_call(device, || {
            gradients.reset();
            let (mut tape, output) = pass()?;
            tape.backward(&output, &gradient, &mut gradients, &[])?;
            Ok(())
        });
        let both = both.context("backward")?;
        let copy = seconds_per_call(device, || {
            let (to, from) = (target.flatten_all()?, gradient.flatten_all()?);
            Ok(to.slice_set(&from, 0, 0)?)
        })?;
        let back = both - ahead - copy;
        ensure!(
            back > 0.0,
            "both passes take {both} s, no more than forward ({ahead}) and a copy ({copy})"
        );
        let directions = [("forward", ahead), ("backward", back)].into_iter();
        let measured = directions
            .zip(self.work)
            .map(|((direction, seconds), work)| {
                let name = format!("{} {direction}", self.name);
                Measurement {
                    name,
                    milliseconds: 1e3 * seconds,
                    work,
                }
            });
        Ok(measured.collect())
    }

    fn tape(&self, pool: &Arc<BufferPool>) -> Tape {
        Tape::new(Mode::Training, pool).with_backend(self.place.backend)
    }
}
