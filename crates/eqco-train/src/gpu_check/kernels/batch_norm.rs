//! Batch norm with everything that is fused into it.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use eqco_models::backend::Backend;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::params::ParameterBuilder;
use eqco_models::tape::{Activation, Mode, Tape};

use super::pass::Operation;
use super::{KernelCheck, ONE_ROUNDING_OF_BF16, Place, Quantity, SUMS_IN_F32, formats};
use crate::gpu_check::random::Draw;

/// f32 keeps a value near 1,000 to 3e-5, of inputs that spread over 0.2.
const SUMS_NEAR_1000: f64 = 1e-3;
/// Where the ReLU's input is so near 0, rounding decides whether it lets the gradient pass.
const AT_A_KINK: f32 = 1e-3;

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    shape: Vec<usize>,
    activate: Activate,
    with_residual: bool,
    group: Option<usize>,
    /// Of the input.
    mean: f32,
    /// Half the width of the input's range.
    spread: f32,
    mode: Mode,
    format: (DType, f64),
}

pub(super) fn checks(seed: u64, most: usize) -> Vec<KernelCheck> {
    let mut checks = Vec::new();
    for mode in [Mode::Training, Mode::Evaluation] {
        for activate in [Activate::Linear, Activate::Relu] {
            for with_residual in [false, true] {
                let name = format!("{mode:?} {activate:?} {with_residual}");
                let mut draw = Draw::new(seed, &name);
                let channels = [draw.odd(3, 75), 8 * draw.between(1, 16)];
                for channels in channels {
                    let [batch, height, width] = draw.maps(channels, most);
                    for format in formats(SUMS_IN_F32, ONE_ROUNDING_OF_BF16) {
                        checks.push(Case {
                            seed,
                            shape: vec![batch, height, width, channels],
                            activate,
                            with_residual,
                            group: (mode == Mode::Training && channels % 2 == 0)
                                .then_some(batch / 2),
                            mean: 0.25,
                            spread: 2.0,
                            mode,
                            format,
                        });
                    }
                }
            }
        }
    }
    checks.extend(with_large_means(seed, most));
    checks.push(of_the_head(seed));
    checks.into_iter().map(Case::into_check).collect()
}

/// Sums of squares would cancel.
fn with_large_means(seed: u64, most: usize) -> [Case; 2] {
    let mut draw = Draw::new(seed, "large mean");
    // bf16 keeps a value near 16 to 0.06: the inputs of both sides are what is left.
    let inputs = [
        (1000.0, 0.2, SUMS_NEAR_1000),
        (16.0, 2.0, ONE_ROUNDING_OF_BF16),
    ];
    let dtypes = [DType::F32, DType::BF16];
    std::array::from_fn(|index| {
        let (mean, spread, bound) = inputs[index];
        let [batch, height, width] = draw.maps(24, most);
        Case {
            seed,
            shape: vec![batch, height, width, 24],
            activate: Activate::Linear,
            with_residual: false,
            group: None,
            mean,
            spread,
            mode: Mode::Training,
            format: (dtypes[index], bound),
        }
    })
}

fn of_the_head(seed: u64) -> Case {
    let mut draw = Draw::new(seed, "head");
    Case {
        seed,
        shape: vec![draw.odd(33, 65), draw.odd(65, 257)],
        activate: Activate::Relu,
        with_residual: false,
        group: None,
        mean: 0.0,
        spread: 1.0,
        mode: Mode::Training,
        format: (DType::F32, SUMS_IN_F32),
    }
}

impl Case {
    fn into_check(self) -> KernelCheck {
        let sides: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let name = format!(
            "{:?} {:?}{}, {}, groups of {:?}, mean {}, {:?}",
            self.mode,
            self.activate,
            if self.with_residual {
                " + residual"
            } else {
                ""
            },
            sides.join("x"),
            self.group,
            self.mean,
            self.format.0
        );
        KernelCheck::new(name, move |place| self.compute(place))
    }

    fn inputs(&self) -> Result<Vec<Tensor>> {
        let mut draw = Draw::new(self.seed, "activations");
        let (low, high) = (self.mean - self.spread, self.mean + self.spread);
        let mut inputs = vec![draw.tensor(&self.shape, low, high)?];
        if self.with_residual {
            inputs.push(draw.tensor(&self.shape, -1.0, 1.0)?);
        }
        Ok(inputs)
    }

    fn declare(&self, builder: &mut ParameterBuilder) -> candle_core::Result<BatchNorm> {
        BatchNorm::new(builder, "norm", self.shape[self.shape.len() - 1], 1.0)
    }

    fn compute(&self, place: Place<'_>) -> Result<Vec<Quantity>> {
        let mut operation = Operation::new(
            self.seed,
            self.inputs()?,
            |builder| self.declare(builder),
            |tape: &mut Tape, norm: &BatchNorm, x: &[Activation]| {
                norm.forward(tape, &x[0], x.get(1), self.activate)
            },
        )
        .with_format(self.format);
        operation.batch_norm_group = self.group;
        if self.mode != Mode::Training {
            return operation.evaluate(place, self.mode);
        }
        operation.mask = self.away_from_the_kink()?;
        operation.differentiate(place)
    }

    /// 1 where the ReLU's input is not near 0.
    fn away_from_the_kink(&self) -> Result<Option<Tensor>> {
        if self.activate == Activate::Linear {
            return Ok(None);
        }
        let mut linear = Operation::new(
            self.seed,
            self.inputs()?,
            |builder| self.declare(builder),
            |tape: &mut Tape, norm: &BatchNorm, x: &[Activation]| {
                norm.forward(tape, &x[0], x.get(1), Activate::Linear)
            },
        )
        .with_format(self.format);
        linear.batch_norm_group = self.group;
        let portable = Place {
            device: &Device::Cpu,
            backend: &Backend::Portable,
        };
        let output = &linear.evaluate(portable, Mode::Preview)?[0].value;
        let far = output.to_dtype(DType::F32)?.abs()?.gt(AT_A_KINK)?;
        Ok(Some(far.to_dtype(DType::F32)?))
    }
}
