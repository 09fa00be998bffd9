//! Batch normalisation over all but the last axis, fused with an optional residual addition and ReLU.
//!
//! y = relu(γ·(x − mean)/√(var + ε) + β + residual). Two passes forward (statistics; normalise, add, clip) and two
//! backward. Nothing is stored beside the input (and, with a residual, the output that the neighbouring operations keep
//! anyway): the normalised value is recomputed, and the ReLU's mask is the sign of the recomputed or stored output.
//! Operations behind need not keep the output without a residual either: it leaves them a recipe to compute it again.

mod cuda;
pub mod portable;

use std::sync::Arc;

use candle_core::{Result, bail};

use self::portable::{Affine, Mask, Statistics};
use super::access::{copy_into, read, write};
use super::element::{Element, for_element};
use crate::backend::Backend;
use crate::params::{NamedBuffer, Parameter, ParameterBuilder};
use crate::profile::{Phase, Work, bytes_of};
use crate::tape::{Activation, BackwardPass, Mode, Recipe, Slot, Tape};

/// Added to the variance, as PyTorch's default.
pub const EPSILON: f64 = 1e-5;
/// Share of the new batch in the running statistics, as PyTorch's default.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// What follows the affine map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activate {
    /// Nothing.
    Linear,
    /// max(0, ·).
    Relu,
}

/// The parameters and running statistics of one layer.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    weight: Parameter,
    bias: Parameter,
    running_mean: NamedBuffer,
    running_var: NamedBuffer,
}

impl BatchNorm {
    /// Declares `weight` (all `scale`), `bias` (0), `running_mean` (0) and `running_var` (1) under `name`.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub fn new(
        builder: &mut ParameterBuilder,
        name: &str,
        channels: usize,
        scale: f32,
    ) -> Result<Self> {
        builder.scope(name, |b| {
            let (weight, bias) = b.norm(channels, scale)?;
            let running_mean = b.buffer("running_mean", channels, 0.0)?;
            let running_var = b.buffer("running_var", channels, 1.0)?;
            Ok(Self {
                weight,
                bias,
                running_mean,
                running_var,
            })
        })
    }

    /// Normalises `input` `[..., C]`, adds `residual` (same shape) if given, and applies `activate`.
    ///
    /// # Errors
    /// When shapes do not fit, or batch statistics are asked for over fewer than two values per channel.
    pub fn forward(
        &self,
        tape: &mut Tape,
        input: &Activation,
        residual: Option<&Activation>,
        activate: Activate,
    ) -> Result<Activation> {
        self.check(input, residual)?;
        if let Backend::Cuda(cuda) = tape.backend() {
            let cuda = Arc::clone(cuda);
            return cuda::forward(&cuda, self, tape, input, residual, activate);
        }
        let mut output = tape.allocate(input.tensor().shape().clone(), input.dtype())?;
        let with_residual = residual.is_some();
        let passes = if tape.mode() == Mode::Evaluation {
            2
        } else {
            3
        } + usize::from(with_residual);
        let _span = tape
            .profiler()
            .span(|| work(Phase::Forward, activate, with_residual, passes, input));
        if tape.mode() == Mode::Evaluation {
            let affine = self.running_affine()?;
            apply(&[affine], input, residual, activate, &output)?;
            return Ok(output);
        }
        let groups = group_count(tape, input)?;
        let statistics = self.batch_statistics(input, groups)?;
        if tape.mode() != Mode::Preview {
            self.update_running(&statistics)?;
        }
        let affine: Arc<[Affine]> = statistics
            .iter()
            .map(|s| self.with_parameters(|w, b| Affine::new(s, w, b)))
            .collect::<Result<_>>()?;
        apply(&affine, input, residual, activate, &output)?;
        let saved = Saved {
            layer: self.clone(),
            input: input.clone(),
            residual: residual.and_then(Activation::slot),
            activate,
            // With a residual the sign of the output cannot be recomputed from the input alone.
            output: residual.is_some().then(|| output.clone()),
            statistics,
            affine: Arc::clone(&affine),
        };
        tape.record(&mut output, move |gradient, pass| {
            saved.backward(gradient, pass)
        });
        if residual.is_none() {
            let input = input.clone();
            let recipe = Recipe::new(move |output| apply(&affine, &input, None, activate, output));
            tape.recompute(&mut output, recipe);
        }
        Ok(output)
    }

    fn check(&self, input: &Activation, residual: Option<&Activation>) -> Result<()> {
        let channels = self.weight.value().elem_count();
        if input.dims().last() != Some(&channels) {
            bail!(
                "{}: expected {channels} channels last, found shape {:?}",
                self.weight.name(),
                input.dims()
            );
        }
        match residual {
            Some(residual)
                if residual.dims() != input.dims() || residual.dtype() != input.dtype() =>
            {
                bail!(
                    "{}: residual of shape {:?} ({:?}) for input {:?} ({:?})",
                    self.weight.name(),
                    residual.dims(),
                    residual.dtype(),
                    input.dims(),
                    input.dtype()
                )
            }
            _ => Ok(()),
        }
    }

    fn with_parameters<R>(&self, f: impl FnOnce(&[f32], &[f32]) -> R) -> Result<R> {
        read(self.weight.value(), |w| {
            read(self.bias.value(), |b| f(w, b))
        })?
    }

    fn running_affine(&self) -> Result<Affine> {
        let statistics = read(self.running_mean.value(), |mean| {
            read(self.running_var.value(), |var| {
                Statistics::from_running(mean, var, EPSILON)
            })
        })??;
        self.with_parameters(|w, b| Affine::new(&statistics, w, b))
    }

    /// How many rows `[channels]` of `input` share statistics.
    ///
    /// # Errors
    /// When they are fewer than two.
    fn rows_per_group(&self, input: &Activation, groups: usize) -> Result<usize> {
        let channels = self.weight.value().elem_count();
        let values_per_channel = input.tensor().elem_count() / channels / groups;
        if values_per_channel < 2 {
            bail!(
                "{}: batch statistics need at least 2 values per channel, found {values_per_channel} in shape {:?}; \
                 use a larger batch or larger images",
                self.weight.name(),
                input.dims()
            );
        }
        Ok(values_per_channel)
    }

    /// Statistics of each group.
    fn batch_statistics(&self, input: &Activation, groups: usize) -> Result<Vec<Statistics>> {
        self.rows_per_group(input, groups)?;
        let channels = self.weight.value().elem_count();
        for_element!(input.dtype(), T => {
            read(input.tensor(), |x: &[T]| {
                x.chunks_exact(x.len() / groups)
                    .map(|x| Statistics::of(x, channels, EPSILON))
                    .collect()
            })
        })
    }

    /// Moves the running statistics towards those of each group in turn.
    fn update_running(&self, statistics: &[Statistics]) -> Result<()> {
        for group in statistics {
            write(self.running_mean.value(), |m| {
                group.update_running_mean(m, BATCH_NORM_MOMENTUM)
            })?;
            write(self.running_var.value(), |v| {
                group.update_running_var(v, BATCH_NORM_MOMENTUM)
            })?;
        }
        Ok(())
    }
}

/// Normalises consecutive groups of `input` by one affine map each.
fn apply(
    affine: &[Affine],
    input: &Activation,
    residual: Option<&Activation>,
    activate: Activate,
    output: &Activation,
) -> Result<()> {
    for_element!(input.dtype(), T => apply_to::<T>(affine, input, residual, activate, output))
}

fn apply_to<T: Element>(
    affine: &[Affine],
    input: &Activation,
    residual: Option<&Activation>,
    activate: Activate,
    output: &Activation,
) -> Result<()> {
    let relu = activate == Activate::Relu;
    let run = |residual: Option<&[T]>| {
        read(input.tensor(), |x: &[T]| {
            write(output.tensor(), |y: &mut [T]| {
                let group = x.len() / affine.len();
                for (index, affine) in affine.iter().enumerate() {
                    let range = index * group..(index + 1) * group;
                    let residual = residual.map(|r| &r[range.clone()]);
                    portable::normalize(affine, &x[range.clone()], residual, relu, &mut y[range]);
                }
            })
        })?
    };
    match residual {
        Some(residual) => read(residual.tensor(), |r| run(Some(r)))?,
        None => run(None),
    }
}

/// For the profile: `passes` arrays of the input's size are read or written.
fn work(
    phase: Phase,
    activate: Activate,
    with_residual: bool,
    passes: usize,
    input: &Activation,
) -> Work {
    let name = match (with_residual, activate) {
        (true, Activate::Relu) => "batch_norm + add + relu",
        (true, Activate::Linear) => "batch_norm + add",
        (false, Activate::Relu) => "batch_norm + relu",
        (false, Activate::Linear) => "batch_norm",
    };
    Work::new(name, phase).moving(passes * bytes_of([input.tensor()]))
}

fn group_count(tape: &Tape, input: &Activation) -> Result<usize> {
    let batch = input.dims()[0];
    match tape.batch_norm_group() {
        None => Ok(1),
        // An empty batch is one group without values, which is refused as such.
        Some(samples) if samples > 0 && batch.is_multiple_of(samples) => {
            Ok((batch / samples).max(1))
        }
        Some(samples) => {
            bail!("batch-norm groups of {samples} images do not divide a batch of {batch}")
        }
    }
}

struct Saved {
    layer: BatchNorm,
    input: Activation,
    residual: Option<Slot>,
    activate: Activate,
    /// With a residual.
    output: Option<Activation>,
    statistics: Vec<Statistics>,
    affine: Arc<[Affine]>,
}

impl Saved {
    /// Turns the output's gradient into the input's in place. The masked gradient, which goes to the residual, takes the
    /// place of the stored output: it has served its last use.
    fn backward(mut self, gradient: Activation, pass: &mut BackwardPass<'_>) -> Result<()> {
        let with_residual = self.output.is_some();
        let _span = pass.profiler().span(|| {
            work(
                Phase::Backward,
                self.activate,
                with_residual,
                self.passes(),
                &self.input,
            )
        });
        let stored = self.output.take();
        let output = stored.map(|output| pass.overwritable(output)).transpose()?;
        for_element!(gradient.dtype(), T => self.run::<T>(&gradient, output.as_ref(), pass))?;
        if let (Some(slot), Some(masked)) = (&self.residual, output) {
            pass.give(slot, masked)?;
        }
        match self.input.slot() {
            Some(slot) => pass.give(&slot, gradient),
            None => Ok(()),
        }
    }

    /// Arrays that are read or written backward: input and gradient twice, with a residual the output for the mask too.
    fn passes(&self) -> usize {
        5 + if self.output.is_some() { 3 } else { 0 }
    }

    fn run<T: Element>(
        &self,
        gradient: &Activation,
        output: Option<&Activation>,
        pass: &mut BackwardPass<'_>,
    ) -> Result<()> {
        match (self.activate, output) {
            (Activate::Linear, None) => self.groups::<T>(gradient, |_, _| Mask::None, pass),
            (Activate::Linear, Some(output)) => {
                copy_into(output.tensor(), gradient.tensor())?;
                self.groups::<T>(gradient, |_, _| Mask::None, pass)
            }
            (Activate::Relu, None) => self.groups::<T>(
                gradient,
                |group, _| Mask::FromInput(&self.affine[group]),
                pass,
            ),
            (Activate::Relu, Some(output)) => write(output.tensor(), |y: &mut [T]| {
                let mut rest = y;
                let mask = |_, len| {
                    let (group, others) = std::mem::take(&mut rest).split_at_mut(len);
                    rest = others;
                    Mask::FromOutput(group)
                };
                self.groups(gradient, mask, pass)
            })?,
        }
    }

    /// Goes through the groups in order; `mask` is asked with the index and the length of each.
    fn groups<'a, T: Element>(
        &'a self,
        gradient: &Activation,
        mut mask: impl FnMut(usize, usize) -> Mask<'a, T>,
        pass: &mut BackwardPass<'_>,
    ) -> Result<()> {
        let (weight_target, add_weight) = pass.parameter_target(&self.layer.weight);
        let (bias_target, add_bias) = pass.parameter_target(&self.layer.bias);
        read(self.input.tensor(), |x: &[T]| {
            write(gradient.tensor(), |dy: &mut [T]| {
                let group = x.len() / self.statistics.len();
                for (index, statistics) in self.statistics.iter().enumerate() {
                    let range = index * group..(index + 1) * group;
                    let (x, dy) = (&x[range.clone()], &mut dy[range]);
                    let mask = mask(index, group);
                    let sums = self
                        .layer
                        .with_parameters(|w, _| portable::backward(statistics, w, x, mask, dy))?;
                    write(&weight_target, |t| {
                        sums.weight_into(t, add_weight || index > 0)
                    })?;
                    write(&bias_target, |t| sums.bias_into(t, add_bias || index > 0))?;
                }
                Ok(())
            })
        })??
    }
}
