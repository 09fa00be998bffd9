//! Optimisers and the schedule of the learning rate.
//!
//! An [`Optimizer`] walks over a [`ParameterSet`] and its [`Gradients`] and updates values in place, one fused pass over
//! each parameter. What it remembers is exported by name, so that a run resumes exactly where it stopped.

mod adamw;
mod config;
mod cuda;
mod lars;
mod schedule;
mod sgd;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::backend::Backend;
use crate::error::{ModelError, check_range};
use crate::ops::access::{copy_into, read, write};
use crate::params::{Parameter, ParameterSet};
use crate::profile::{Phase, Work, bytes_of};
use crate::saved_state::{count_from_state, count_to_tensor, tensor_from_state};
use crate::tape::Gradients;

pub use config::{AdamWConfig, LarsConfig, OptimizerConfig, SgdConfig};
pub use schedule::{LearningRateScaling, Schedule, ScheduleConfig, ScheduleKind};

const STEP_COUNT: &str = "step_count";

/// An optimiser with what it remembers of each parameter of one [`ParameterSet`].
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// By parameter index.
    slots: Vec<Slot>,
    step_count: u64,
    /// On a GPU: all parameters in a few launches.
    cuda: Option<cuda::Updates>,
}

/// The memory of one parameter: tensors of the parameter's shape and layout, named by `OptimizerConfig::memory_names`.
#[derive(Debug)]
struct Slot {
    parameter: String,
    memory: Vec<Tensor>,
}

impl Optimizer {
    /// An optimiser for `parameters`, which has seen no gradient yet.
    ///
    /// # Errors
    /// When a hyper-parameter is out of range or the device cannot allocate.
    pub fn new(config: &OptimizerConfig, parameters: &ParameterSet) -> Result<Self, ModelError> {
        config.validate()?;
        let slots = parameters.parameters().iter().map(|parameter| {
            let memory = config
                .memory_names()
                .iter()
                .map(|_| parameter.value().zeros_like());
            Ok(Slot {
                parameter: parameter.name().to_string(),
                memory: memory.collect::<candle_core::Result<_>>()?,
            })
        });
        let slots = slots.collect::<Result<_, ModelError>>()?;
        Ok(Self {
            config: *config,
            slots,
            step_count: 0,
            cuda: None,
        })
    }

    /// The same optimiser, updating with the kernels of `backend`.
    #[must_use]
    pub fn with_backend(mut self, backend: &Backend) -> Self {
        self.cuda = match backend {
            Backend::Cuda(cuda) => Some(cuda::Updates::new(cuda)),
            Backend::Portable | Backend::Onednn(_) => None,
        };
        self
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Number of steps taken, over all resumed runs.
    pub fn step_count(&self) -> u64 {
        self.step_count
    }

    /// Updates every parameter in place from its gradient. The gradients are left as they are.
    ///
    /// # Errors
    /// [`ModelError::MissingGradient`] when the backward pass did not reach a parameter, [`ModelError::ParameterMismatch`]
    /// or [`ModelError::Shape`] when the set is not the one this optimiser was made for, [`ModelError::OutOfRange`] when
    /// the learning rate is negative or not finite. Nothing is updated then.
    pub fn step(
        &mut self,
        parameters: &ParameterSet,
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<(), ModelError> {
        let in_range = learning_rate.is_finite() && learning_rate >= 0.0;
        check_range(
            "learning_rate",
            "a finite number of at least 0",
            learning_rate,
            in_range,
        )?;
        let gradients = self.matching_gradients(parameters, gradients)?;
        self.step_count += 1;
        if let Some(updates) = &mut self.cuda {
            let rows = cuda::rows(
                &self.config,
                &self.slots,
                parameters.parameters(),
                &gradients,
            )?;
            updates.step(
                &self.config,
                rows,
                parameters,
                learning_rate,
                self.step_count,
            )?;
            return Ok(());
        }
        // Parallel over parameters and over chunks of each: a thread that has no chunk left to take goes on to another
        // parameter, and the many small ones cost no waiting.
        self.slots
            .par_iter()
            .zip(parameters.parameters())
            .zip(gradients)
            .try_for_each(|((slot, parameter), gradient)| {
                self.update(slot, parameter, gradient, learning_rate)
            })?;
        Ok(())
    }

    /// Bytes of everything that it remembers.
    pub fn bytes(&self) -> usize {
        self.slots.iter().map(|slot| bytes_of(&slot.memory)).sum()
    }

    /// One step for the profile: the gradient is read, the parameter and what is remembered of it are read and written.
    pub fn work(&self) -> Work {
        let bytes = self.slots.iter().map(|slot| {
            let array = bytes_of([&slot.memory[0]]);
            (3 + 2 * slot.memory.len()) * array
        });
        Work::new("optimiser", Phase::Other).moving(bytes.sum())
    }

    /// The gradient of every parameter, after checking all that could stop an update half-way.
    fn matching_gradients<'a>(
        &self,
        parameters: &ParameterSet,
        gradients: &'a Gradients,
    ) -> Result<Vec<&'a Tensor>, ModelError> {
        let parameters = parameters.parameters();
        let position = (0..self.slots.len().max(parameters.len())).find(|&i| {
            self.slots.get(i).map(|s| s.parameter.as_str())
                != parameters.get(i).map(Parameter::name)
        });
        if let Some(position) = position {
            let expected = self
                .slots
                .get(position)
                .map_or("no further parameter", |s| &s.parameter)
                .to_string();
            let found = parameters
                .get(position)
                .map_or("no further parameter", Parameter::name)
                .to_string();
            return Err(ModelError::ParameterMismatch {
                position,
                expected,
                found,
            });
        }
        let checked = self.slots.iter().zip(parameters).map(|(slot, parameter)| {
            let name = parameter.name().to_string();
            check_shape(&name, slot.memory[0].dims(), parameter.value())?;
            let gradient = gradients
                .get(parameter)
                .ok_or(ModelError::MissingGradient { parameter: name })?;
            check_shape(
                &format!("gradient of {}", parameter.name()),
                parameter.value().dims(),
                gradient,
            )?;
            Ok(gradient)
        });
        checked.collect()
    }

    fn update(
        &self,
        slot: &Slot,
        parameter: &Parameter,
        gradient: &Tensor,
        learning_rate: f64,
    ) -> candle_core::Result<()> {
        let (value, memory, role) = (parameter.value(), &slot.memory, parameter.role());
        let decay = self.config.weight_decay_of(role);
        read(gradient, |g| match &self.config {
            OptimizerConfig::Sgd(sgd) => write(&memory[0], |v| {
                write(value, |w| sgd::update(sgd, decay, learning_rate, w, v, g))
            })?,
            OptimizerConfig::Lars(lars) => write(&memory[0], |v| {
                write(value, |w| {
                    lars::update(lars, role, decay, learning_rate, w, v, g)
                })
            })?,
            OptimizerConfig::AdamW(adamw) => write(&memory[0], |m| {
                write(&memory[1], |v| {
                    write(value, |w| {
                        adamw::update(adamw, decay, learning_rate, self.step_count, w, m, v, g)
                    })
                })?
            })?,
        })?
    }

    /// Copies of everything the optimiser remembers, for a checkpoint: `velocity.NAME` (SGD, LARS) or
    /// `first_moment.NAME` and `second_moment.NAME` (AdamW) for every parameter NAME, in the parameter's memory layout,
    /// and the scalar `step_count`.
    ///
    /// # Errors
    /// When a copy fails on the device.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>, ModelError> {
        let mut state = Vec::new();
        for slot in &self.slots {
            for (kind, tensor) in self.config.memory_names().iter().zip(&slot.memory) {
                state.push((format!("{kind}.{}", slot.parameter), tensor.copy()?));
            }
        }
        state.push((STEP_COUNT.into(), count_to_tensor(self.step_count)?));
        Ok(state)
    }

    /// Takes up the state that [`Optimizer::state`] exported, found in `tensors` behind `prefix`. Other tensors are ignored.
    ///
    /// # Errors
    /// When a tensor is missing or does not fit, for instance because another optimiser wrote the state. Nothing is
    /// changed then.
    pub fn load_state(
        &mut self,
        prefix: &str,
        tensors: &HashMap<String, Tensor>,
    ) -> Result<(), ModelError> {
        let step_count = count_from_state(tensors, &format!("{prefix}{STEP_COUNT}"))?;
        let mut planned = Vec::new();
        for slot in &self.slots {
            for (kind, target) in self.config.memory_names().iter().zip(&slot.memory) {
                let source = tensor_from_state(
                    tensors,
                    &format!("{prefix}{kind}.{}", slot.parameter),
                    target,
                )?;
                planned.push((target, source));
            }
        }
        planned
            .iter()
            .try_for_each(|(target, source)| copy_into(target, source))?;
        self.step_count = step_count;
        Ok(())
    }
}

fn check_shape(name: &str, expected: &[usize], tensor: &Tensor) -> Result<(), ModelError> {
    if tensor.dims() == expected {
        return Ok(());
    }
    Err(ModelError::Shape {
        tensor: name.into(),
        expected: expected.to_vec(),
        found: tensor.dims().to_vec(),
    })
}
