//! Cross-entropy of a classifier: the mean over the batch of ln Σ exp(logits) − logit of the label.

use candle_core::{DType, Result, bail};
use rayon::prelude::*;

use super::access::{read, write};
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
    let mut loss = tape.allocate(1, DType::F32)?;
    let probabilities = tape.allocate((rows, classes), DType::F32)?;
    let _span = tape.profiler().span(|| {
        Work::new("cross_entropy", Phase::Forward)
            .moving(bytes_of([logits.tensor(), probabilities.tensor()]))
    });
    let mean = read(logits.tensor(), |x| {
        write(probabilities.tensor(), |p| forward(classes, labels, x, p))
    })??;
    write(loss.tensor(), |value: &mut [f32]| value[0] = mean as f32)?;
    let (slot, labels) = (logits.slot(), labels.to_vec());
    tape.record(&mut loss, move |gradient, pass| {
        let Some(slot) = slot else { return Ok(()) };
        let _span = pass.profiler().span(|| {
            Work::new("cross_entropy", Phase::Backward)
                .moving(bytes_of([probabilities.tensor(), probabilities.tensor()]))
        });
        let outer = read(gradient.tensor(), |g: &[f32]| g[0])?;
        // Nothing else holds the probabilities: they become the gradient in place.
        write(probabilities.tensor(), |p| {
            backward(classes, &labels, outer / rows as f32, p)
        })?;
        pass.give(&slot, probabilities)
    });
    Ok(loss)
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
