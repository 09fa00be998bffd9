//! The fused loss beside the naive form: time and memory of loss and query gradient.
//!
//! The naive form is what one writes with candle alone: a matrix product for all logits, the positive
//! in front, log-softmax, and candle's backward pass. Times are medians over pairs of alternating
//! runs, and the ratio is the median of the ratios of the pairs, so that a machine that slows down
//! for a while slows both. Memory is the most that was allocated at one time beyond what was there
//! before the call, measured on the very first call of each.
//!
//! `cargo bench -p eqco-core`

#[path = "../tests/memory/counting_allocator.rs"]
mod counting_allocator;

use std::time::{Duration, Instant};

use candle_core::{D, Device, Result, Tensor, Var};
use candle_nn::ops::log_softmax;
use counting_allocator::peak_bytes;
use eqco_core::{
    Alpha, ContrastiveLoss, DrawKind, LossConfig, NegativeDraw, Negatives, WantedGradients,
};

const BATCH_SIZE: usize = 256;
const DIM: usize = 128;
const TEMPERATURE: f64 = 0.2;
const ALPHA: f64 = 65536.0;
const PAIRS: usize = 9;
/// Short runs are repeated until a measurement takes about this long.
const LEAST_TIME: Duration = Duration::from_millis(50);

fn seconds(repeats: u32, run: &impl Fn() -> Result<f64>) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..repeats {
        std::hint::black_box(run()?);
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(repeats))
}

fn repeats_for(run: &impl Fn() -> Result<f64>) -> Result<u32> {
    let once = seconds(1, run)?;
    Ok((LEAST_TIME.as_secs_f64() / once).ceil().clamp(1.0, 1000.0) as u32)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures one setting and prints its line. Both functions return the loss.
fn compare(
    what: &str,
    fused: impl Fn() -> Result<f64>,
    naive: impl Fn() -> Result<f64>,
) -> Result<()> {
    let (fused_loss, fused_bytes) = peak_bytes(&fused)?;
    let (naive_loss, naive_bytes) = peak_bytes(&naive)?;
    assert!(
        (fused_loss - naive_loss).abs() < 1e-4,
        "{what}: {fused_loss} and {naive_loss}"
    );

    let (fused_repeats, naive_repeats) = (repeats_for(&fused)?, repeats_for(&naive)?);
    let (mut fused_times, mut naive_times, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..PAIRS {
        let ours = seconds(fused_repeats, &fused)?;
        let theirs = seconds(naive_repeats, &naive)?;
        fused_times.push(ours);
        naive_times.push(theirs);
        ratios.push(theirs / ours);
    }
    println!(
        "{what:<24}{:>11.3}{:>11.3}{:>8.1}x{:>12.2}{:>12.2}{:>8.1}x",
        1e3 * median(&mut fused_times),
        1e3 * median(&mut naive_times),
        median(&mut ratios),
        fused_bytes as f64 / 1e6,
        naive_bytes as f64 / 1e6,
        naive_bytes as f64 / fused_bytes as f64,
    );
    Ok(())
}

fn unit_rows(count: usize) -> Result<Tensor> {
    let rows = Tensor::randn(0f32, 1.0, (count, DIM), &Device::Cpu)?;
    rows.broadcast_div(&rows.sqr()?.sum_keepdim(1)?.sqrt()?)
}

/// Log-softmax over all logits, the positive first and less its margin, then backward.
fn naive_loss(queries: &Var, keys: &Tensor, negative_logits: Tensor) -> Result<f64> {
    let negative_count = negative_logits.dim(1)?;
    let log_ratio = (ALPHA / negative_count as f64).ln();
    let positive = ((queries.as_tensor() * keys)?.sum_keepdim(1)? / TEMPERATURE)?;
    let logits = Tensor::cat(&[(positive - log_ratio)?, negative_logits], 1)?;
    let loss = log_softmax(&logits, D::Minus1)?
        .narrow(1, 0, 1)?
        .mean_all()?
        .neg()?;
    let gradients = loss.backward()?;
    assert!(gradients.get(queries).is_some());
    Ok(f64::from(loss.to_scalar::<f32>()?))
}

fn main() -> Result<()> {
    let loss = ContrastiveLoss::new(LossConfig {
        temperature: TEMPERATURE,
        alpha: Alpha::Equivalent(ALPHA),
    })?;
    let queries = Var::from_tensor(&unit_rows(BATCH_SIZE)?)?;
    let keys = unit_rows(BATCH_SIZE)?;
    let fused = |negatives: Negatives<'_>| -> Result<f64> {
        Ok(loss
            .evaluate(&queries, &keys, negatives, WantedGradients::QUERIES)?
            .loss)
    };

    println!(
        "N = {BATCH_SIZE}, D = {DIM}, f32, loss and query gradient, {PAIRS} alternating pairs"
    );
    println!(
        "{:<24}{:>11}{:>11}{:>9}{:>12}{:>12}{:>9}",
        "negatives", "fused ms", "naive ms", "time", "fused MB", "naive MB", "memory"
    );

    let negative_count = 16;
    let draw = NegativeDraw::sample(DrawKind::PerQuery, BATCH_SIZE, negative_count, 0, 0)?;
    let indices = Tensor::new(draw.indices(), &Device::Cpu)?;
    compare(
        "K = 16 in batch",
        || fused(Negatives::InBatch(&draw)),
        || {
            let gathered = keys.index_select(&indices, 0)?;
            let gathered = gathered.reshape((BATCH_SIZE, negative_count, DIM))?;
            let logits = gathered.matmul(&queries.unsqueeze(2)?)?.squeeze(2)?;
            naive_loss(&queries, &keys, (logits / TEMPERATURE)?)
        },
    )?;
    for negative_count in [4096, 65536] {
        let queue = unit_rows(negative_count)?;
        compare(
            &format!("K = {negative_count} queue"),
            || fused(Negatives::Shared(&queue)),
            || {
                naive_loss(
                    &queries,
                    &keys,
                    (queries.matmul(&queue.t()?)? / TEMPERATURE)?,
                )
            },
        )?;
    }
    Ok(())
}
