//! The loss over a queue, fused and with all logits in memory.

use anyhow::Result;
use candle_core::{D, DType, Tensor};
use eqco_core::{Alpha, ContrastiveLoss, LossConfig, Negatives, WantedGradients};
use eqco_models::backend::Backend;

use super::{Scale, noise, seconds_per_call};
use crate::gpu_check::kernels::Place;
use crate::gpu_check::outcome::{Measurement, Outcome, Work};

/// Name of the measurement of our loss.
pub const FUSED_LOSS: &str = "loss 4096 x 65536 x 128, fused";
/// Name of the measurement of the loss with all logits in memory.
pub const MATERIALISED_LOSS: &str = "loss 4096 x 65536 x 128, all logits (candle)";

const TEMPERATURE: f64 = 0.2;

/// Unit rows in bf16: queries, their keys, and a queue.
struct Rows {
    queries: Tensor,
    keys: Tensor,
    negatives: Tensor,
}

impl Rows {
    fn new(place: Place<'_>, scale: Scale) -> Result<Self> {
        let width = scale.of(128, 16);
        let (queries, negatives) = (scale.of(4096, 8), scale.of(65_536, 24));
        let rows = |count| -> Result<Tensor> {
            let rows = noise(&[count, width], place)?;
            let lengths = rows.sqr()?.sum_keepdim(1)?.sqrt()?;
            Ok(rows.broadcast_div(&lengths)?.to_dtype(DType::BF16)?)
        };
        Ok(Self {
            queries: rows(queries)?,
            keys: rows(queries)?,
            negatives: rows(negatives)?,
        })
    }

    /// Similarities, and weighted negatives.
    fn flops(&self) -> u64 {
        (4 * self.queries.elem_count() * self.negatives.dims()[0]) as u64
    }
}

/// Our loss with the gradient of the queries: 4,096 of 128 components, 65,536 negatives, bf16.
pub struct FusedLoss<'a> {
    rows: Rows,
    loss: ContrastiveLoss,
    place: Place<'a>,
}

impl<'a> FusedLoss<'a> {
    /// Inputs on the device.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub fn new(place: Place<'a>, scale: Scale) -> Result<Self> {
        let config = LossConfig {
            temperature: TEMPERATURE,
            alpha: Alpha::Infonce,
        };
        Ok(Self {
            rows: Rows::new(place, scale)?,
            loss: ContrastiveLoss::new(config)?,
            place,
        })
    }

    /// Multiplications and additions of both products.
    pub(in crate::gpu_check) fn flops(&self) -> u64 {
        self.rows.flops()
    }

    /// Has loss and gradient computed, and waits for neither on a GPU.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn send(&self) -> Result<()> {
        let Backend::Cuda(cuda) = self.place.backend else {
            return self.evaluate().map(drop);
        };
        let rows = &self.rows;
        let (negatives, wanted) = (Negatives::Shared(&rows.negatives), WantedGradients::QUERIES);
        let (queries, keys) = (&rows.queries, &rows.keys);
        let _figures = self
            .loss
            .enqueue(cuda.queue(), queries, keys, negatives, wanted)?;
        Ok(())
    }

    /// The mean loss in nats; the gradient is computed too.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn evaluate(&self) -> Result<f64> {
        let rows = &self.rows;
        let negatives = Negatives::Shared(&rows.negatives);
        let wanted = WantedGradients::QUERIES;
        let (queries, keys) = (&rows.queries, &rows.keys);
        let output = match self.place.backend {
            Backend::Cuda(cuda) => {
                self.loss
                    .evaluate_on(cuda.queue(), queries, keys, negatives, wanted)?
            }
            _ => self.loss.evaluate(queries, keys, negatives, wanted)?,
        };
        Ok(output.loss)
    }
}

/// The same with candle's operations, as text books have it: a matrix of all logits, cross-entropy, and a second product for the
/// gradient, without the overhead of an automatic one.
pub struct MaterialisedLoss {
    rows: Rows,
    product: DType,
}

impl MaterialisedLoss {
    /// Inputs on the device. Products are of bf16 on a GPU and of f32 on the CPU, where candle has no others.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub fn new(place: Place<'_>, scale: Scale) -> Result<Self> {
        Ok(Self {
            rows: Rows::new(place, scale)?,
            product: if place.device.is_cpu() {
                DType::F32
            } else {
                DType::BF16
            },
        })
    }

    /// The mean loss, a scalar on the device, and the gradient of the queries.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn evaluate(&self) -> Result<[Tensor; 2]> {
        let as_factor = |tensor: &Tensor| tensor.to_dtype(self.product);
        let (queries, negatives) = (
            as_factor(&self.rows.queries)?,
            as_factor(&self.rows.negatives)?,
        );
        let similarities = queries.matmul(&negatives.t()?)?.to_dtype(DType::F32)?;
        let in_f32 = |tensor: &Tensor| tensor.to_dtype(DType::F32);
        let keys = in_f32(&self.rows.keys)?;
        let positive = (in_f32(&queries)? * &keys)?.sum_keepdim(1)?;
        let logits = (Tensor::cat(&[&positive, &similarities], 1)? / TEMPERATURE)?;
        let largest = logits.max_keepdim(D::Minus1)?;
        let exponentials = logits.broadcast_sub(&largest)?.exp()?;
        let sums = exponentials.sum_keepdim(D::Minus1)?;
        let losses = ((sums.log()? + &largest)? - (positive / TEMPERATURE)?)?;
        let weights = exponentials.broadcast_div(&sums)?;
        let count = negatives.dims()[0];
        let of_negatives = weights.narrow(1, 1, count)?.contiguous()?;
        let pulled = in_f32(&as_factor(&of_negatives)?.matmul(&negatives)?)?;
        let missing = (weights.narrow(1, 0, 1)? - 1.0)?;
        let gradient = (pulled + keys.broadcast_mul(&missing)?)?;
        let share = 1.0 / (TEMPERATURE * queries.dims()[0] as f64);
        let gradient = (gradient * share)?.to_dtype(DType::BF16)?;
        Ok([losses.mean_all()?, gradient])
    }
}

pub(super) fn measure(place: Place<'_>, scale: Scale) -> Result<Outcome> {
    let fused = FusedLoss::new(place, scale)?;
    let materialised = MaterialisedLoss::new(place, scale)?;
    let work = Work::FlopsInBf16(fused.flops());
    let ours = seconds_per_call(place.device, || fused.send())?;
    let theirs = seconds_per_call(place.device, || materialised.evaluate().map(drop))?;
    let measured = [(FUSED_LOSS, ours), (MATERIALISED_LOSS, theirs)];
    let measurements = measured.map(|(name, seconds)| Measurement {
        name: name.to_owned(),
        milliseconds: 1e3 * seconds,
        work,
    });
    Ok(Outcome {
        measurements: measurements.into(),
        ..Outcome::default()
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// What is timed against each other must be the same.
    #[test]
    fn both_forms_give_one_loss() -> Result<()> {
        let place = Place {
            device: &Device::Cpu,
            backend: &Backend::Portable,
        };
        let fused = FusedLoss::new(place, Scale::Tiny)?;
        let materialised = MaterialisedLoss {
            rows: Rows {
                queries: fused.rows.queries.clone(),
                keys: fused.rows.keys.clone(),
                negatives: fused.rows.negatives.clone(),
            },
            product: DType::F32,
        };
        let [loss, gradient] = materialised.evaluate()?;
        let (loss, expected) = (f64::from(loss.to_scalar::<f32>()?), fused.evaluate()?);
        assert!((loss - expected).abs() < 1e-5, "{loss}, {expected}");
        let rows = &fused.rows;
        let output = fused.loss.evaluate(
            &rows.queries,
            &rows.keys,
            Negatives::Shared(&rows.negatives),
            WantedGradients::QUERIES,
        )?;
        // Either is rounded to bf16 at last.
        let distance = crate::gpu_check::distance(&output.queries_gradient, &gradient, 0.0)?;
        assert!(distance < 1e-2, "{distance}");
        Ok(())
    }
}
