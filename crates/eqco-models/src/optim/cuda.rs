//! Updates on a GPU: all parameters in one launch, or three where LARS needs norms first.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use eqco_core::cuda::{address, address_mut};

use super::{AdamWConfig, LarsConfig, OptimizerConfig, SgdConfig, Slot};
use crate::cuda::{Arrays, Cuda, Many, across};
use crate::params::{Parameter, ParameterSet};

/// Updates with the kernels of one GPU.
#[derive(Debug)]
pub(super) struct Updates {
    cuda: Arc<Cuda>,
    /// With the table that it was made for.
    lars: Option<(Arc<Many>, LarsMemory)>,
}

/// What LARS passes from launch to launch.
#[derive(Debug)]
struct LarsMemory {
    /// Two f64 a piece, as pairs of words.
    squares: Tensor,
    first_pieces: Tensor,
    /// Trust coefficients, 0 for parameters that are not scaled.
    trust: Tensor,
    rates: Tensor,
}

/// Weight, gradient and what is remembered of each parameter, with its weight decay.
pub(super) fn rows(
    config: &OptimizerConfig,
    slots: &[Slot],
    parameters: &[Parameter],
    gradients: &[&Tensor],
) -> Result<Vec<Arrays>> {
    let row = |((slot, parameter), gradient): ((&Slot, &Parameter), &&Tensor)| {
        let mut addresses = [address_mut(parameter.value())?, address(gradient)?, 0, 0];
        for (target, memory) in addresses[2..].iter_mut().zip(&slot.memory) {
            *target = address_mut(memory)?;
        }
        Ok(Arrays {
            addresses,
            count: gradient.elem_count(),
            number: config.weight_decay_of(parameter.role()) as f32,
        })
    };
    slots
        .iter()
        .zip(parameters)
        .zip(gradients)
        .map(row)
        .collect()
}

impl Updates {
    pub(super) fn new(cuda: &Arc<Cuda>) -> Self {
        Self {
            cuda: Arc::clone(cuda),
            lars: None,
        }
    }

    /// Updates every parameter. `step` counts from 1.
    pub(super) fn step(
        &mut self,
        config: &OptimizerConfig,
        rows: Vec<Arrays>,
        parameters: &ParameterSet,
        learning_rate: f64,
        step: u64,
    ) -> Result<()> {
        let Some(first) = parameters.parameters().first() else {
            return Ok(());
        };
        let table = self.cuda.table(rows, first.value().device())?;
        match config {
            OptimizerConfig::Sgd(sgd) => self.sgd(sgd, &table, learning_rate),
            OptimizerConfig::AdamW(adamw) => self.adamw(adamw, &table, learning_rate, step),
            OptimizerConfig::Lars(lars) => {
                let kept = self.lars.take().filter(|(of, _)| Arc::ptr_eq(of, &table));
                let memory = match kept {
                    Some((_, memory)) => memory,
                    None => LarsMemory::new(lars, parameters, &table)?,
                };
                self.lars(lars, &table, &memory, learning_rate)?;
                self.lars = Some((table, memory));
                Ok(())
            }
        }
    }

    fn sgd(&self, config: &SgdConfig, many: &Many, learning_rate: f64) -> Result<()> {
        let launch = many
            .launch("sgd")?
            .arg(learning_rate as f32)
            .arg(config.sgd_momentum as f32)
            .arg(config.nesterov);
        // SAFETY: the table holds live tensors of the sizes that it says, all of them f32.
        unsafe { self.cuda.launch(&launch) }
    }

    fn adamw(
        &self,
        config: &AdamWConfig,
        many: &Many,
        learning_rate: f64,
        step: u64,
    ) -> Result<()> {
        let [beta1, beta2] = config.betas;
        let first_correction = 1.0 - beta1.powf(step as f64);
        let second_correction = 1.0 - beta2.powf(step as f64);
        let launch = many
            .launch("adamw")?
            .arg(learning_rate as f32)
            .arg((learning_rate / first_correction) as f32)
            .arg((1.0 / second_correction.sqrt()) as f32)
            .arg(config.eps as f32)
            .arg((1.0 - beta1) as f32)
            .arg(beta2 as f32)
            .arg((1.0 - beta2) as f32);
        // SAFETY: as in `sgd`.
        unsafe { self.cuda.launch(&launch) }
    }

    fn lars(
        &self,
        config: &LarsConfig,
        many: &Many,
        memory: &LarsMemory,
        learning_rate: f64,
    ) -> Result<()> {
        let (squares, rates) = (address_mut(&memory.squares)?, address_mut(&memory.rates)?);
        let norms = many.launch("lars_squares")?.arg(squares);
        let parameters = memory.trust.elem_count();
        let find_rates = across("lars_rates", parameters)
            .arg(squares)
            .arg(address(&memory.first_pieces)?)
            .arg(address(&memory.trust)?)
            .arg(rates)
            .arg(parameters)
            .arg(learning_rate as f32);
        let update = many
            .launch("lars")?
            .arg(rates)
            .arg(config.sgd_momentum as f32);
        for launch in [norms, find_rates, update] {
            // SAFETY: as in `sgd`; what passes between the launches is sized by the same table.
            unsafe { self.cuda.launch(&launch)? };
        }
        Ok(())
    }
}

impl LarsMemory {
    fn new(config: &LarsConfig, parameters: &ParameterSet, many: &Many) -> Result<Self> {
        let parameters = parameters.parameters();
        let trust = parameters.iter().map(|parameter| {
            let excluded = config.exclude_norm_and_bias_from_scaling
                && parameter.role().is_excluded_by_convention();
            if excluded {
                0.0
            } else {
                config.trust_coefficient as f32
            }
        });
        let device = parameters
            .first()
            .map_or(Device::Cpu, |parameter| parameter.value().device().clone());
        let words = Tensor::zeros(4 * many.pieces(), DType::F32, &device)?;
        Ok(Self {
            squares: words,
            first_pieces: Tensor::new(many.first_pieces(), &device)?,
            trust: Tensor::from_iter(trust, &device)?,
            rates: Tensor::zeros(parameters.len(), DType::F32, &device)?,
        })
    }
}
