//! Cross-entropy of a classifier: the mean over the batch of ln Σ exp(logits) − logit of the label.

use candle_core::{DType, Result, Tensor, bail};
use eqco_core::cuda::{Launch, address, address_mut};
use rayon::prelude::*;

use super::access::{read, write};
use crate::cuda::{Cuda, a_warp_each};
use crate::profile::{Phase, Work, bytes_of};
use crate::tape::{Activation, Tape};

/// Rows that one task handles: a row of logits is short.
const ROWS: usize = 64;

/// Mean cross-entropy in nats, `[1]`, of `logits` `[N,C]` with one label a row, each below C.
///
/// Computed as a shifted log-sum-exp, so that logits of any size are safe; the mean is summed in f64, in the order of the
/// rows. The gradient is (softmax − one at the label) / N.
///
/// # Errors
/// When the logits are not two-dimensional or without rows, or the labels are not N numbers below C.
pub fn cross_entropy(tape: &mut Tape, logits: &Activation, labels: &[u32]) -> Result<Activation> {
    let (rows, classes) = checked(logits, labels)?;
    let mut loss = tape.allocate(1, DType::F32)?;
    let probabilities = tape.allocate((rows, classes), DType::F32)?;
    let _span = tape.profiler().span(|| {
        Work::new("cross_entropy", Phase::Forward)
            .moving(bytes_of([logits.tensor(), probabilities.tensor()]))
    });
    let labels = match tape.backend().cuda() {
        Some(cuda) => {
            let labels = Tensor::from_slice(labels, rows, logits.tensor().device())?;
            forward_on(cuda, &labels, [logits, &probabilities, &loss])?;
            Labels::OnDevice(labels)
        }
        None => {
            let mean = read(logits.tensor(), |x| {
                write(probabilities.tensor(), |p| forward(classes, labels, x, p))
            })??;
            write(loss.tensor(), |value: &mut [f32]| value[0] = mean as f32)?;
            Labels::InHostMemory(labels.to_vec())
        }
    };
    let slot = logits.slot();
    tape.record(&mut loss, move |gradient, pass| {
        let Some(slot) = slot else { return Ok(()) };
        let _span = pass.profiler().span(|| {
            Work::new("cross_entropy", Phase::Backward)
                .moving(bytes_of([probabilities.tensor(), probabilities.tensor()]))
        });
        // Nothing else holds the probabilities: they become the gradient in place.
        match (&labels, pass.backend().cuda()) {
            (Labels::OnDevice(labels), Some(cuda)) => {
                backward_on(cuda, labels, gradient.tensor(), &probabilities)?;
            }
            (Labels::InHostMemory(labels), None) => {
                let outer = read(gradient.tensor(), |g: &[f32]| g[0])?;
                write(probabilities.tensor(), |p| {
                    backward(classes, labels, outer / rows as f32, p)
                })?;
            }
            _ => bail!("cross_entropy: expected the family of kernels of the forward pass"),
        }
        pass.give(&slot, probabilities)
    });
    Ok(loss)
}

/// Where the family that computes reads labels.
enum Labels {
    InHostMemory(Vec<u32>),
    OnDevice(Tensor),
}

/// The number of rows and of classes, once logits and labels fit each other.
fn checked(logits: &Activation, labels: &[u32]) -> Result<(usize, usize)> {
    let &[rows, classes] = logits.dims() else {
        bail!("cross_entropy: expected [N,C], found {:?}", logits.dims())
    };
    if rows == 0 || labels.len() != rows {
        bail!(
            "cross_entropy: expected one label for each of {rows} rows and at least one row, found {} labels",
            labels.len()
        );
    }
    if let Some(row) = labels.iter().position(|label| *label as usize >= classes) {
        bail!(
            "cross_entropy: expected labels below {classes}, found {} in row {row}",
            labels[row]
        );
    }
    Ok((rows, classes))
}

/// The softmax of every row and the mean loss, by CUDA's kernels.
fn forward_on(
    cuda: &Cuda,
    labels: &Tensor,
    [logits, probabilities, loss]: [&Activation; 3],
) -> Result<()> {
    let (rows, classes) = logits.tensor().dims2()?;
    let losses = Tensor::zeros(rows, DType::F64, labels.device())?;
    let of_rows = a_warp_each("cross_entropy_rows", rows)
        .arg(address(logits.tensor())?)
        .arg(address(labels)?)
        .arg(address_mut(probabilities.tensor())?)
        .arg(address_mut(&losses)?)
        .arg(rows)
        .arg(classes);
    let mean = Launch::new("cross_entropy_mean")
        .block(32, 1)
        .arg(address(&losses)?)
        .arg(address_mut(loss.tensor())?)
        .arg(rows);
    // SAFETY: the arguments are those of the kernels; labels are below the number of classes.
    unsafe {
        cuda.launch(&of_rows)?;
        cuda.launch(&mean)
    }
}

/// In place: the gradient of the logits from their softmax, by CUDA's kernel. `outer` is one number.
fn backward_on(
    cuda: &Cuda,
    labels: &Tensor,
    outer: &Tensor,
    probabilities: &Activation,
) -> Result<()> {
    let (rows, classes) = probabilities.tensor().dims2()?;
    let launch = a_warp_each("cross_entropy_gradient", rows)
        .arg(address(labels)?)
        .arg(address(outer)?)
        .arg(address_mut(probabilities.tensor())?)
        .arg(rows)
        .arg(classes);
    // SAFETY: the arguments are those of the kernel.
    unsafe { cuda.launch(&launch) }
}

/// Fills `p` with the softmax of every row of `x`; the mean loss.
fn forward(classes: usize, labels: &[u32], x: &[f32], p: &mut [f32]) -> f64 {
    let blocks: Vec<f64> = (p.par_chunks_mut(ROWS * classes))
        .zip(x.par_chunks(ROWS * classes))
        .zip(labels.par_chunks(ROWS))
        .map(|((p, x), labels)| {
            let rows = p.chunks_exact_mut(classes).zip(x.chunks_exact(classes));
            let losses = rows.zip(labels);
            losses
                .map(|((p, x), label)| softmax(x, p, *label as usize))
                .sum()
        })
        .collect();
    // Blocks have a fixed size and are added in order: the sum does not depend on the threads.
    blocks.iter().sum::<f64>() / labels.len() as f64
}

/// Fills `p` with the softmax of `x`; ln Σ exp(x) − x of the label.
fn softmax(x: &[f32], p: &mut [f32], label: usize) -> f64 {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (p, x) in p.iter_mut().zip(x) {
        *p = (x - largest).exp();
        sum += f64::from(*p);
    }
    let scale = (1.0 / sum) as f32;
    p.iter_mut().for_each(|p| *p *= scale);
    // The difference first: ln Σ would vanish beside a large logit.
    sum.ln() + (f64::from(largest) - f64::from(x[label]))
}

/// In place: the gradient of the logits, from their softmax.
fn backward(classes: usize, labels: &[u32], scale: f32, p: &mut [f32]) {
    for (p, label) in p.chunks_exact_mut(classes).zip(labels) {
        p[*label as usize] -= 1.0;
        p.iter_mut().for_each(|p| *p *= scale);
    }
}
