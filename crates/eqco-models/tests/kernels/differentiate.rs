//! How passes are run: forward and backward with everything that comes out, and on how many threads.

use candle_core::{Device, Result, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::params::{ParameterBuilder, ParameterRole, ParameterSet};
use eqco_models::tape::{Activation, Gradients, Mode, Tape};

/// The results of one pass.
pub struct Differentiated {
    pub output: Tensor,
    /// Gradient of every input.
    pub inputs: Vec<Tensor>,
    /// Gradient of every parameter by name, in exchange shapes.
    pub parameters: Vec<(String, Tensor)>,
}

impl Differentiated {
    /// The gradient of the parameter `name`.
    pub fn parameter(&self, name: &str) -> &Tensor {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        &found.expect("the parameter exists").1
    }
}

/// Declares layers on the CPU.
pub fn declare<L>(
    layers: impl FnOnce(&mut ParameterBuilder) -> Result<L>,
) -> Result<(L, ParameterSet)> {
    let mut builder = ParameterBuilder::new(0, &Device::Cpu);
    let layers = layers(&mut builder)?;
    Ok((layers, builder.finish()))
}

/// The value of `forward` in training mode, without gradients.
pub fn evaluate(
    inputs: &[Tensor],
    forward: &impl Fn(&mut Tape, &[Activation]) -> Result<Activation>,
) -> Result<Tensor> {
    let mut tape = crate::families::tape(Mode::Unrecorded, &BufferPool::new(&Device::Cpu));
    let inputs = inputs
        .iter()
        .map(Activation::constant)
        .collect::<Result<Vec<_>>>()?;
    forward(&mut tape, &inputs)?.to_tensor()
}

/// Runs `forward` on fresh memory and propagates `gradient_of(output shape)` back.
pub fn differentiate(
    set: &ParameterSet,
    inputs: &[Tensor],
    gradient_of: impl FnOnce(&[usize]) -> Result<Tensor>,
    forward: &impl Fn(&mut Tape, &[Activation]) -> Result<Activation>,
) -> Result<Differentiated> {
    let mut tape = crate::families::tape(Mode::Training, &BufferPool::new(&Device::Cpu));
    let inputs = inputs
        .iter()
        .map(|input| tape.input(input))
        .collect::<Result<Vec<_>>>()?;
    let output = forward(&mut tape, &inputs)?;
    let value = output.to_tensor()?;
    let mut gradients = Gradients::new(set)?;
    let wanted: Vec<&Activation> = inputs.iter().collect();
    let reached = tape.backward(
        &output,
        &gradient_of(value.dims())?,
        &mut gradients,
        &wanted,
    )?;
    Ok(Differentiated {
        output: value,
        inputs: reached
            .into_iter()
            .map(|gradient| gradient.expect("every input takes part"))
            .collect(),
        parameters: in_exchange_shapes(set, &gradients)?,
    })
}

/// All gradients by name, as PyTorch has them.
pub fn in_exchange_shapes(
    set: &ParameterSet,
    gradients: &Gradients,
) -> Result<Vec<(String, Tensor)>> {
    set.parameters()
        .iter()
        .map(|parameter| {
            let gradient = gradients
                .get(parameter)
                .expect("every parameter is reached");
            let gradient = match parameter.role() {
                ParameterRole::ConvWeight => gradient.permute((0, 3, 1, 2))?.force_contiguous()?,
                _ => gradient.copy()?,
            };
            Ok((parameter.name().to_string(), gradient))
        })
        .collect()
}

/// Calls `run` inside a pool of so many threads.
pub fn on_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads start");
    pool.install(run)
}
