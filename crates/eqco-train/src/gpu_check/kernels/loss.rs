//! The contrastive loss: every layout of negatives, both formats, everything that it gives.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use eqco_core::{
    Alpha, ContrastiveLoss, DrawKind, LossConfig, LossOutput, NegativeDraw, Negatives,
    WantedGradients, nt_xent, nt_xent_on,
};
use eqco_models::backend::Backend;

use super::{KernelCheck, Place, Quantity};
use crate::gpu_check::poison::poison_freed_memory;
use crate::gpu_check::random::Draw;

/// Similarities are off by some 6e-8; the inverse of a temperature of 0.1 multiplies that by 10 before it is exponentiated.
const NUMBERS: f64 = 1e-5;
/// Of the largest gradient: those of few rows are differences of larger numbers.
const GRADIENTS_IN_F32: f64 = 1e-5;
/// Weights are rounded to 8 bits before they multiply keys (0.002 of each), and gradients at last (0.002 on either side); the bound
/// is twice the sum, for gradients that are differences.
const GRADIENTS_IN_BF16: f64 = 1.2e-2;
/// The temperature's gradient is a sum of such gradients over logits of about 1.
const TEMPERATURE_IN_BF16: f64 = 1e-2;

#[derive(Clone, Copy, Debug)]
enum Layout {
    /// A queue of so many keys.
    Shared(usize),
    /// So many keys of the batch a query.
    Drawn(DrawKind, usize),
    /// The same, for the second half of the queries.
    DrawnForHalf(usize),
    /// Both views of all other images.
    NtXent,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    seed: u64,
    layout: Layout,
    rows: usize,
    width: usize,
    dtype: DType,
    config: LossConfig,
}

pub(super) fn checks(seed: u64) -> Vec<KernelCheck> {
    let mut checks = Vec::new();
    let mut draw = Draw::new(seed, "loss");
    let layouts = [
        Layout::Shared(draw.odd(65, 999)),
        Layout::Shared(4096),
        Layout::Drawn(DrawKind::PerQuery, 7),
        Layout::Drawn(DrawKind::SharedColumns, 16),
        Layout::DrawnForHalf(5),
        Layout::NtXent,
    ];
    let alphas = [Alpha::Equivalent(256.0), Alpha::Infonce, Alpha::Decoupled];
    for (number, layout) in layouts.into_iter().enumerate() {
        for (rows, width) in [(2 * draw.between(9, 40), 128), (34, draw.odd(5, 99))] {
            for dtype in [DType::F32, DType::BF16] {
                let config = LossConfig {
                    temperature: if width == 128 { 0.2 } else { 0.1 },
                    alpha: alphas[number % alphas.len()],
                };
                let case = Case {
                    seed,
                    layout,
                    rows,
                    width,
                    dtype,
                    config,
                };
                let name = format!(
                    "{layout:?}, {rows} of {width}, {:?}, {dtype:?}",
                    config.alpha
                );
                checks.push(KernelCheck::new(name, move |place| case.compute(place)));
            }
        }
    }
    checks
}

impl Case {
    fn unit_rows(&self, name: &str, rows: usize, place: Place<'_>) -> Result<Tensor> {
        let rows = Draw::new(self.seed, name).unit_rows(rows, self.width)?;
        Ok(rows.to_dtype(self.dtype)?.to_device(place.device)?)
    }

    fn compute(&self, place: Place<'_>) -> Result<Vec<Quantity>> {
        let queries = self.unit_rows("queries", self.rows, place)?;
        let keys = self.unit_rows("keys", self.rows, place)?;
        let output = match self.layout {
            Layout::Shared(count) => {
                let negatives = self.unit_rows("negatives", count, place)?;
                self.evaluate(place, [&queries, &keys], Negatives::Shared(&negatives))?
            }
            Layout::Drawn(kind, count) => {
                let draw = NegativeDraw::sample(kind, self.rows, count, self.seed, 0)?;
                self.evaluate(place, [&queries, &keys], Negatives::InBatch(&draw))?
            }
            Layout::DrawnForHalf(count) => {
                let (kind, half) = (DrawKind::PerQuery, self.rows / 2);
                let draw = NegativeDraw::sample(kind, self.rows, count, self.seed, 0)?;
                let [some_queries, some_keys] =
                    [&queries, &keys].map(|all| all.narrow(0, half, half));
                let negatives = Negatives::InLargerBatch {
                    draw: &draw,
                    batch_keys: &keys,
                    first: half,
                };
                self.evaluate(place, [&some_queries?, &some_keys?], negatives)?
            }
            Layout::NtXent => {
                poison_freed_memory(place.device)?;
                match place.backend {
                    Backend::Cuda(cuda) => nt_xent_on(cuda.queue(), &self.config, &queries, &keys)?,
                    _ => nt_xent(&self.config, &queries, &keys)?,
                }
            }
        };
        self.quantities(&output)
    }

    fn evaluate(
        &self,
        place: Place<'_>,
        [queries, keys]: [&Tensor; 2],
        negatives: Negatives<'_>,
    ) -> Result<LossOutput> {
        let (loss, wanted) = (ContrastiveLoss::new(self.config)?, WantedGradients::ALL);
        poison_freed_memory(place.device)?;
        Ok(match place.backend {
            Backend::Cuda(cuda) => {
                loss.evaluate_on(cuda.queue(), queries, keys, negatives, wanted)?
            }
            _ => loss.evaluate(queries, keys, negatives, wanted)?,
        })
    }

    fn quantities(&self, output: &LossOutput) -> Result<Vec<Quantity>> {
        let in_bf16 = self.dtype == DType::BF16;
        let of_temperature = if in_bf16 {
            TEMPERATURE_IN_BF16
        } else {
            NUMBERS
        };
        let of_tensors = if in_bf16 {
            GRADIENTS_IN_BF16
        } else {
            GRADIENTS_IN_F32
        };
        let statistics = &output.statistics;
        let numbers = [
            ("loss", output.loss, NUMBERS),
            ("top-1", statistics.contrast_top1, 0.0),
            (
                "positive similarity",
                statistics.positive_similarity,
                NUMBERS,
            ),
            (
                "negative similarity",
                statistics.negative_similarity,
                NUMBERS,
            ),
            ("gradient scale", statistics.gradient_scale, NUMBERS),
            (
                "its deviation",
                statistics.gradient_scale_deviation,
                NUMBERS,
            ),
            ("guaranteed bound", statistics.guaranteed_bound, NUMBERS),
            (
                "temperature gradient",
                output.temperature_gradient,
                of_temperature,
            ),
        ];
        let mut quantities = Vec::new();
        for (name, number, bound) in numbers {
            // Beside 1, so that a number near 0 is compared as it is.
            let value = Tensor::new(&[number, 1.0], &Device::Cpu)?;
            let name = name.to_owned();
            quantities.push(Quantity { name, value, bound });
        }
        let gradients = [
            ("queries", Some(&output.queries_gradient)),
            ("keys", output.keys_gradient.as_ref()),
            ("negatives", output.negatives_gradient.as_ref()),
        ];
        for (name, gradient) in gradients {
            let Some(gradient) = gradient else { continue };
            quantities.push(Quantity {
                name: format!("gradient of {name}"),
                value: gradient.to_device(&Device::Cpu)?,
                bound: of_tensors,
            });
        }
        Ok(quantities)
    }
}
