//! Batch normalisation on a GPU: the same passes as the portable form, with everything that belongs to a channel left on the
//! device. Sums of bands are added in f64, in an order that the shape alone decides.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use eqco_core::cuda::{address, address_mut};

use super::{Activate, BATCH_NORM_MOMENTUM, BatchNorm, EPSILON, group_count, work};
use crate::cuda::{Columns, Cuda, by_type};
use crate::profile::Phase;
use crate::tape::{Activation, BackwardPass, Mode, Recipe, Slot, Tape};

/// Per-channel values in one tensor: mean, inverse deviation, scale and shift of the affine map.
const CONSTANTS: usize = 4;

/// Which elements the ReLU lets the gradient of pass; values as in `backward.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mask {
    None = 0,
    FromInput = 1,
    FromOutput = 2,
}

/// As [`BatchNorm::forward`], whose checks have been made.
pub(super) fn forward(
    cuda: &Arc<Cuda>,
    layer: &BatchNorm,
    tape: &mut Tape,
    input: &Activation,
    residual: Option<&Activation>,
    activate: Activate,
) -> Result<Activation> {
    let mut output = tape.allocate(input.tensor().shape().clone(), input.dtype())?;
    let with_residual = residual.is_some();
    let passes = if tape.mode() == Mode::Evaluation {
        2
    } else {
        3
    } + usize::from(with_residual);
    let profiler = tape.profiler().clone();
    let _span = profiler.span(|| work(Phase::Forward, activate, with_residual, passes, input));
    let layer = Layer {
        cuda: Arc::clone(cuda),
        layer: layer.clone(),
    };
    if tape.mode() == Mode::Evaluation {
        let rows = input.tensor().elem_count() / layer.channels();
        let columns = Columns::new(1, rows, layer.channels());
        let constants = layer.running_constants(tape, &columns)?;
        layer.normalize(
            &columns,
            constants.tensor(),
            input,
            residual,
            activate,
            &output,
        )?;
        return Ok(output);
    }
    let groups = group_count(tape, input)?;
    let rows = layer.layer.rows_per_group(input, groups)?;
    let columns = Columns::new(groups, rows, layer.channels());
    let constants = layer.batch_constants(tape, &columns, input)?;
    layer.normalize(
        &columns,
        constants.tensor(),
        input,
        residual,
        activate,
        &output,
    )?;
    let saved = Saved {
        layer: layer.clone(),
        columns,
        constants: constants.clone(),
        input: input.clone(),
        residual: residual.and_then(Activation::slot),
        activate,
        output: residual.is_some().then(|| output.clone()),
    };
    tape.record(&mut output, move |gradient, pass| {
        saved.backward(gradient, pass)
    });
    if residual.is_none() {
        let input = input.clone();
        let recipe = Recipe::new(move |output| {
            layer.normalize(&columns, constants.tensor(), &input, None, activate, output)
        });
        tape.recompute(&mut output, recipe);
    }
    Ok(output)
}

#[derive(Clone)]
struct Layer {
    cuda: Arc<Cuda>,
    layer: BatchNorm,
}

impl Layer {
    fn channels(&self) -> usize {
        self.layer.weight.value().elem_count()
    }

    fn parameters(&self) -> Result<[u64; 2]> {
        Ok([
            address(self.layer.weight.value())?,
            address(self.layer.bias.value())?,
        ])
    }

    fn running(&self) -> Result<[u64; 2]> {
        Ok([
            address_mut(self.layer.running_mean.value())?,
            address_mut(self.layer.running_var.value())?,
        ])
    }

    /// `[CONSTANTS, groups, C]` from the statistics of the batch; running statistics move but in a preview.
    fn batch_constants(
        &self,
        tape: &mut Tape,
        columns: &Columns,
        input: &Activation,
    ) -> Result<Activation> {
        let partial = tape.allocate((columns.bands(), 2, columns.values()), DType::F32)?;
        let constants = tape.allocate((CONSTANTS, columns.values()), DType::F32)?;
        // Of f64: two words each.
        let variances = tape.allocate(2 * columns.values(), DType::F32)?;
        let dtype = input.dtype();
        let (x, partial) = (address(input.tensor())?, address_mut(partial.tensor())?);
        let sums = columns
            .launch(
                by_type(dtype, ["batch_norm_sums_f32", "batch_norm_sums_bf16"]),
                by_type(
                    dtype,
                    ["batch_norm_sums_single_f32", "batch_norm_sums_single_bf16"],
                ),
            )
            .shared(columns.shared_for_sums())
            .arg(x)
            .arg(partial)
            .arg(columns.channels)
            .arg(columns.rows);
        // SAFETY: the arguments are those of the kernel, sized by `columns`.
        unsafe { self.cuda.launch(&sums)? };
        let (target, squares) = (
            address_mut(constants.tensor())?,
            address_mut(variances.tensor())?,
        );
        let [weight, bias] = self.parameters()?;
        let finish = columns
            .finish(by_type(
                dtype,
                ["batch_norm_finish_f32", "batch_norm_finish_bf16"],
            ))
            .arg(x)
            .arg(partial)
            .arg(weight)
            .arg(bias)
            .arg(target)
            .arg(squares)
            .arg(columns.channels)
            .arg(columns.rows)
            .arg(columns.groups)
            .arg(columns.bands())
            .arg(EPSILON as f32);
        // SAFETY: as above.
        unsafe { self.cuda.launch(&finish)? };
        if tape.mode() != Mode::Preview {
            let [mean, variance] = self.running()?;
            let running = columns
                .each_channel("batch_norm_running")
                .arg(target)
                .arg(squares)
                .arg(mean)
                .arg(variance)
                .arg(columns.channels)
                .arg(columns.rows)
                .arg(columns.groups)
                .arg(BATCH_NORM_MOMENTUM as f32);
            // SAFETY: as above.
            unsafe { self.cuda.launch(&running)? };
        }
        Ok(constants)
    }

    /// `[CONSTANTS, C]` from the running statistics.
    fn running_constants(&self, tape: &mut Tape, columns: &Columns) -> Result<Activation> {
        let constants = tape.allocate((CONSTANTS, columns.values()), DType::F32)?;
        let [weight, bias] = self.parameters()?;
        let launch = columns
            .each_channel("batch_norm_of_running")
            .arg(address(self.layer.running_mean.value())?)
            .arg(address(self.layer.running_var.value())?)
            .arg(weight)
            .arg(bias)
            .arg(address_mut(constants.tensor())?)
            .arg(columns.channels)
            .arg(EPSILON as f32);
        // SAFETY: the arguments are those of the kernel, sized by `columns`.
        unsafe { self.cuda.launch(&launch)? };
        Ok(constants)
    }

    fn normalize(
        &self,
        columns: &Columns,
        constants: &Tensor,
        input: &Activation,
        residual: Option<&Activation>,
        activate: Activate,
        output: &Activation,
    ) -> Result<()> {
        let columns = columns.for_elements();
        let dtype = input.dtype();
        let residual = residual
            .map(|residual| address(residual.tensor()))
            .transpose()?;
        let launch = columns
            .launch(
                by_type(
                    dtype,
                    ["batch_norm_normalize_f32", "batch_norm_normalize_bf16"],
                ),
                by_type(
                    dtype,
                    [
                        "batch_norm_normalize_single_f32",
                        "batch_norm_normalize_single_bf16",
                    ],
                ),
            )
            .arg(address(input.tensor())?)
            .arg(residual.unwrap_or(0))
            .arg(address(constants)?)
            .arg(address_mut(output.tensor())?)
            .arg(columns.channels)
            .arg(columns.rows)
            .arg(columns.band)
            .arg(activate == Activate::Relu);
        // SAFETY: the arguments are those of the kernel, sized by `columns`.
        unsafe { self.cuda.launch(&launch) }
    }
}

struct Saved {
    layer: Layer,
    columns: Columns,
    constants: Activation,
    input: Activation,
    residual: Option<Slot>,
    activate: Activate,
    /// With a residual.
    output: Option<Activation>,
}

impl Saved {
    /// Without a residual the output's gradient becomes the input's in place. With one it is masked, which makes it the residual's, and
    /// the input's takes the place of the stored output.
    fn backward(mut self, gradient: Activation, pass: &mut BackwardPass<'_>) -> Result<()> {
        let with_residual = self.output.is_some();
        let passes = if with_residual { 7 } else { 5 };
        let _span = pass.profiler().span(|| {
            work(
                Phase::Backward,
                self.activate,
                with_residual,
                passes,
                &self.input,
            )
        });
        let stored = self.output.take();
        let output = stored.map(|output| pass.overwritable(output)).transpose()?;
        let mask = match (self.activate, &output) {
            (Activate::Linear, _) => Mask::None,
            (Activate::Relu, None) => Mask::FromInput,
            (Activate::Relu, Some(_)) => Mask::FromOutput,
        };
        let sums = self.sums(&gradient, output.as_ref(), mask, pass)?;
        let target = output.as_ref().unwrap_or(&gradient);
        self.input_gradient(&gradient, target, mask, &sums)?;
        let of_input = match output {
            Some(of_input) => {
                if let Some(slot) = &self.residual {
                    pass.give(slot, gradient)?;
                }
                of_input
            }
            None => gradient,
        };
        match self.input.slot() {
            Some(slot) => pass.give(&slot, of_input),
            None => Ok(()),
        }
    }

    /// Gradients of weight and bias; returns each group's share of them, `[2, groups, C]`, bias first.
    fn sums(
        &self,
        gradient: &Activation,
        output: Option<&Activation>,
        mask: Mask,
        pass: &mut BackwardPass<'_>,
    ) -> Result<Activation> {
        let columns = &self.columns;
        let partial = pass.allocate((columns.bands(), 2, columns.values()), DType::F32)?;
        let sums = pass.allocate((2, columns.values()), DType::F32)?;
        let dtype = gradient.dtype();
        let constants = address(self.constants.tensor())?;
        let launch = columns
            .launch(
                by_type(
                    dtype,
                    [
                        "batch_norm_gradient_sums_f32",
                        "batch_norm_gradient_sums_bf16",
                    ],
                ),
                by_type(
                    dtype,
                    [
                        "batch_norm_gradient_sums_single_f32",
                        "batch_norm_gradient_sums_single_bf16",
                    ],
                ),
            )
            .shared(columns.shared_for_sums())
            .arg(address(self.input.tensor())?)
            .arg(address_mut(gradient.tensor())?)
            .arg(address(output.unwrap_or(&self.input).tensor())?)
            .arg(constants)
            .arg(address_mut(partial.tensor())?)
            .arg(columns.channels)
            .arg(columns.rows)
            .arg(mask as u32);
        // SAFETY: the arguments are those of the kernel, sized by `columns`.
        unsafe { self.layer.cuda.launch(&launch)? };
        let finish = columns
            .finish("batch_norm_gradient_finish")
            .arg(address(partial.tensor())?)
            .arg(constants)
            .arg(address_mut(sums.tensor())?)
            .arg(columns.values())
            .arg(columns.bands());
        // SAFETY: as above.
        unsafe { self.layer.cuda.launch(&finish)? };
        let (weight, add_weight) = pass.parameter_target(&self.layer.layer.weight);
        let (bias, add_bias) = pass.parameter_target(&self.layer.layer.bias);
        let parameters = columns
            .each_channel("batch_norm_parameter_gradients")
            .arg(address(sums.tensor())?)
            .arg(address_mut(&weight)?)
            .arg(address_mut(&bias)?)
            .arg(columns.channels)
            .arg(columns.groups)
            .arg(add_weight)
            .arg(add_bias);
        // SAFETY: as above.
        unsafe { self.layer.cuda.launch(&parameters)? };
        Ok(sums)
    }

    fn input_gradient(
        &self,
        gradient: &Activation,
        target: &Activation,
        mask: Mask,
        sums: &Activation,
    ) -> Result<()> {
        let columns = self.columns.for_elements();
        let dtype = gradient.dtype();
        let launch = columns
            .launch(
                by_type(
                    dtype,
                    [
                        "batch_norm_input_gradient_f32",
                        "batch_norm_input_gradient_bf16",
                    ],
                ),
                by_type(
                    dtype,
                    [
                        "batch_norm_input_gradient_single_f32",
                        "batch_norm_input_gradient_single_bf16",
                    ],
                ),
            )
            .arg(address(self.input.tensor())?)
            .arg(address(gradient.tensor())?)
            .arg(address_mut(target.tensor())?)
            .arg(address(self.constants.tensor())?)
            .arg(address(sums.tensor())?)
            .arg(columns.channels)
            .arg(columns.rows)
            .arg(columns.band)
            .arg(mask as u32);
        // SAFETY: the arguments are those of the kernel, sized by `columns`.
        unsafe { self.layer.cuda.launch(&launch) }
    }
}
