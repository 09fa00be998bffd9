//! Forward and backward passes of one operation, in memory that was NaN before.

use std::collections::HashMap;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::params::{ParameterBuilder, ParameterRole, ParameterSet};
use eqco_models::tape::{Activation, Gradients, Mode, Tape};

use super::{Place, Quantity};
use crate::gpu_check::poison::poison_freed_memory;
use crate::gpu_check::random::Draw;

/// One operation with everything that goes into it. Tensors are f32 on the CPU; activations are rounded to `dtype`.
pub(super) struct Operation<L, D, F> {
    pub(super) seed: u64,
    pub(super) dtype: DType,
    /// Images that share batch statistics.
    pub(super) batch_norm_group: Option<usize>,
    /// Declares the parameters.
    pub(super) declare: D,
    pub(super) inputs: Vec<Tensor>,
    /// Whether nobody wants the gradients of the inputs, as of images.
    pub(super) inputs_are_constant: bool,
    /// Where the gradient of the output is left out: 0 there, 1 elsewhere.
    pub(super) mask: Option<Tensor>,
    pub(super) forward: F,
    /// How far every result may be.
    pub(super) bound: f64,
    pub(super) layers: std::marker::PhantomData<L>,
}

impl<L, D, F> Operation<L, D, F>
where
    D: Fn(&mut ParameterBuilder) -> candle_core::Result<L>,
    F: Fn(&mut Tape, &L, &[Activation]) -> candle_core::Result<Activation>,
{
    pub(super) fn new(seed: u64, inputs: Vec<Tensor>, declare: D, forward: F) -> Self {
        Self {
            seed,
            dtype: DType::F32,
            batch_norm_group: None,
            declare,
            inputs,
            inputs_are_constant: false,
            mask: None,
            forward,
            bound: 0.0,
            layers: std::marker::PhantomData,
        }
    }

    pub(super) fn with_format(self, (dtype, bound): (DType, f64)) -> Self {
        Self {
            dtype,
            bound,
            ..self
        }
    }

    pub(super) fn of_constants(self) -> Self {
        Self {
            inputs_are_constant: true,
            ..self
        }
    }

    /// The output, the gradients of all inputs and parameters, and all buffers after the pass.
    ///
    /// The pass runs twice. Between the two everything that it has written and will get again is filled with NaN, so that
    /// a kernel that leaves an element out, reads what it has not written, or adds where it should write, shows it.
    pub(super) fn differentiate(&self, place: Place<'_>) -> Result<Vec<Quantity>> {
        let pool = BufferPool::new(place.device);
        let (layers, set) = self.parameters(place)?;
        let mut gradients = Gradients::new(&set)?;
        self.pass(place, (&layers, &pool), &mut gradients)?;
        poison_gradients(&set, &gradients)?;
        gradients.reset();
        pool.poison()?;
        poison_freed_memory(place.device)?;

        // Running statistics have moved: the second pass begins anew.
        let (layers, set) = self.parameters(place)?;
        let mut quantities = self.pass(place, (&layers, &pool), &mut gradients)?;
        for parameter in set.parameters() {
            if let Some(gradient) = gradients.get(parameter) {
                let name = format!("gradient of {}", parameter.name());
                quantities.push(self.quantity(name, gradient)?);
            }
        }
        for buffer in set.buffers() {
            quantities.push(self.quantity(buffer.name().to_owned(), buffer.value())?);
        }
        Ok(quantities)
    }

    /// The output in `mode`, which records nothing, in poisoned memory.
    pub(super) fn evaluate(&self, place: Place<'_>, mode: Mode) -> Result<Vec<Quantity>> {
        let pool = BufferPool::new(place.device);
        let (layers, set) = self.parameters(place)?;
        let output = || -> Result<Tensor> {
            let mut tape = self.tape(place, mode, &pool);
            let inputs = self.inputs_at(place)?;
            let inputs = inputs.iter().map(Activation::constant);
            let inputs = inputs.collect::<candle_core::Result<Vec<_>>>()?;
            Ok((self.forward)(&mut tape, &layers, &inputs)?.to_tensor()?)
        };
        output()?;
        pool.poison()?;
        let mut quantities = vec![self.quantity("output".to_owned(), &output()?)?];
        for buffer in set.buffers() {
            quantities.push(self.quantity(buffer.name().to_owned(), buffer.value())?);
        }
        Ok(quantities)
    }

    fn quantity(&self, name: String, value: &Tensor) -> Result<Quantity> {
        Ok(Quantity {
            name,
            value: value.to_device(&Device::Cpu)?.copy()?,
            bound: self.bound,
        })
    }

    fn tape(&self, place: Place<'_>, mode: Mode, pool: &std::sync::Arc<BufferPool>) -> Tape {
        // Direct sums are the more exact reference.
        Tape::new(mode, pool)
            .with_backend(place.backend)
            .with_winograd(false)
            .with_batch_norm_group(self.batch_norm_group)
    }

    fn inputs_at(&self, place: Place<'_>) -> Result<Vec<Tensor>> {
        let at = |input: &Tensor| Ok(input.to_dtype(self.dtype)?.to_device(place.device)?);
        self.inputs.iter().map(at).collect()
    }

    fn pass(
        &self,
        place: Place<'_>,
        (layers, pool): (&L, &std::sync::Arc<BufferPool>),
        gradients: &mut Gradients,
    ) -> Result<Vec<Quantity>> {
        let mut tape = self.tape(place, Mode::Training, pool);
        let inputs = self.inputs_at(place)?;
        let inputs = inputs.iter().map(|input| match self.inputs_are_constant {
            true => Activation::constant(input),
            false => tape.input(input),
        });
        let inputs = inputs.collect::<candle_core::Result<Vec<_>>>()?;
        let output = (self.forward)(&mut tape, layers, &inputs)?;
        let mut gradient =
            Draw::new(self.seed, "gradient of the output").tensor(output.dims(), -1.0, 1.0)?;
        if let Some(mask) = &self.mask {
            gradient = (gradient * mask)?;
        }
        let gradient = gradient.to_dtype(output.dtype())?.to_device(place.device)?;
        let value = output.to_tensor()?;
        let wanted: Vec<&Activation> = inputs.iter().collect();
        let reached = tape.backward(&output, &gradient, gradients, &wanted)?;
        let mut quantities = vec![self.quantity("output".to_owned(), &value)?];
        for (number, gradient) in reached.into_iter().enumerate() {
            if let Some(gradient) = gradient {
                quantities.push(self.quantity(format!("gradient of input {number}"), &gradient)?);
            }
        }
        Ok(quantities)
    }

    /// Layers as they are initialised, but with batch norms that do something, and with weights of convolutions that bf16 can
    /// hold where activations are bf16: NVIDIA's kernels round them, the CPU's do so on some processors alone.
    fn parameters(&self, place: Place<'_>) -> Result<(L, ParameterSet)> {
        let mut builder = ParameterBuilder::new(self.seed, place.device);
        let layers = (self.declare)(&mut builder)?;
        let set = builder.finish();
        let mut named: HashMap<String, Tensor> = set.to_named()?.into_iter().collect();
        for parameter in set.parameters() {
            let name = parameter.name();
            let mut draw = Draw::new(self.seed, name);
            let shape = parameter.value().dims();
            let value = match parameter.role() {
                ParameterRole::NormScale => draw.tensor(shape, 0.5, 1.5)?,
                ParameterRole::NormShift => draw.tensor(shape, -1.0, 1.0)?,
                ParameterRole::ConvWeight => {
                    named[name].to_dtype(self.dtype)?.to_dtype(DType::F32)?
                }
                ParameterRole::LinearWeight | ParameterRole::Bias => continue,
            };
            named.insert(name.to_owned(), value);
        }
        for buffer in set.buffers() {
            let mut draw = Draw::new(self.seed, buffer.name());
            let value = draw.tensor(buffer.value().dims(), 0.5, 1.5)?;
            named.insert(buffer.name().to_owned(), value);
        }
        set.load_named("", &named)?;
        Ok((layers, set))
    }
}

/// Overwrites all gradients that have been written.
fn poison_gradients(set: &ParameterSet, gradients: &Gradients) -> Result<()> {
    for parameter in set.parameters() {
        if let Some(gradient) = gradients.get(parameter) {
            let poison = Tensor::full(f32::NAN, gradient.shape(), gradient.device())?;
            gradient.slice_set(&poison, 0, 0)?;
        }
    }
    Ok(())
}
