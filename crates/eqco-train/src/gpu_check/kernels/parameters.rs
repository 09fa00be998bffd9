//! A small network with parameters of every kind, and gradients that are made up for them.

use std::collections::HashMap;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::ops::average_pool::global_average_pool;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::ops::conv2d::conv2d;
use eqco_models::ops::linear::linear;
use eqco_models::params::{Parameter, ParameterBuilder, ParameterSet};
use eqco_models::tape::{Activation, Gradients, Mode, Tape};

use super::{Place, Quantity};
use crate::gpu_check::random::Draw;

/// Channels of the convolution: an odd number, and with 9 taps and 33 inputs more values than one block takes.
const CHANNELS: usize = 65;
const INPUTS: usize = 33;
const OUTPUTS: usize = 7;

/// A convolution, a batch norm and a linear layer, with weights that depend on the seed.
pub(super) struct SmallNetwork {
    conv: Parameter,
    norm: BatchNorm,
    weight: Parameter,
    bias: Parameter,
    pub(super) set: ParameterSet,
}

impl SmallNetwork {
    pub(super) fn new(seed: u64, device: &Device) -> Result<Self> {
        let mut builder = ParameterBuilder::new(seed, device);
        let conv = builder.conv_weight("conv.weight", CHANNELS, INPUTS, 3)?;
        let norm = BatchNorm::new(&mut builder, "norm", CHANNELS, 1.0)?;
        let weight = builder.linear_weight("fc.weight", OUTPUTS, CHANNELS)?;
        let bias = builder.bias("fc.bias", OUTPUTS, CHANNELS)?;
        let set = builder.finish();
        // Norms begin at 1 and 0: an update that does nothing to them would not show.
        let drawn = set.to_named()?.into_iter().map(|(name, tensor)| {
            let values = Draw::new(seed, &name).tensor(tensor.dims(), 0.1, 1.0)?;
            Ok((name, values))
        });
        set.load_named("", &drawn.collect::<Result<HashMap<_, _>>>()?)?;
        Ok(Self {
            conv,
            norm,
            weight,
            bias,
            set,
        })
    }

    /// Room for gradients that a backward pass has reached, without which no optimiser takes them.
    pub(super) fn reached_gradients(&self, place: Place<'_>) -> Result<Gradients> {
        let mut gradients = Gradients::new(&self.set)?;
        let pool = BufferPool::new(place.device);
        let mut tape = Tape::new(Mode::Training, &pool).with_backend(place.backend);
        let images = Draw::new(0, "images").tensor(&[2, 5, 5, INPUTS], -1.0, 1.0)?;
        let images = Activation::constant(&images.to_device(place.device)?)?;
        let hidden = conv2d(&mut tape, &images, &self.conv, 1, 1)?;
        let hidden = self
            .norm
            .forward(&mut tape, &hidden, None, Activate::Relu)?;
        let pooled = global_average_pool(&mut tape, &hidden)?;
        let output = linear(&mut tape, &pooled, &self.weight, Some(&self.bias))?;
        let slopes = output.to_tensor()?.ones_like()?;
        tape.backward(&output, &slopes, &mut gradients, &[])?;
        Ok(gradients)
    }

    /// Puts made-up values in place of all gradients: those of one step.
    pub(super) fn draw_gradients(&self, seed: u64, step: u64, gradients: &Gradients) -> Result<()> {
        for parameter in self.set.parameters() {
            let missing = || format!("no gradient of {}", parameter.name());
            let target = gradients.get(parameter).with_context(missing)?;
            let mut draw = Draw::new(seed, &format!("{} {step}", parameter.name()));
            let values = draw.tensor(target.dims(), -1.0, 1.0)?;
            target.slice_set(&values.to_device(target.device())?, 0, 0)?;
        }
        Ok(())
    }
}

/// Tensors by name, on the CPU, in an order of their own.
pub(super) fn quantities(
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    bound: f64,
) -> Result<Vec<Quantity>> {
    let mut quantities = Vec::new();
    for (name, tensor) in tensors {
        let value = tensor.to_device(&Device::Cpu)?;
        quantities.push(Quantity { name, value, bound });
    }
    quantities.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(quantities)
}
