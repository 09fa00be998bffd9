//! Batch-normalisation kernels on `[rows, channels]` slices.
//!
//! Rows are processed as wide rows of lcm(channels, 32) elements, so that few-channel layers still fill the vector units
//! and sums stay in registers. Sums are f32 within a task, over differences to the first row (no cancellation when the
//! mean is large against the deviation), and f64 across tasks.

use rayon::prelude::*;

use crate::ops::lanes::{CHUNK, vectorized};

/// Columns whose sums are held in registers at a time.
const BLOCK: usize = 32;

/// Mean and inverse deviation of every channel.
#[derive(Clone, Debug)]
pub struct Statistics {
    mean: Vec<f32>,
    inverse_deviation: Vec<f32>,
    /// Biased variance.
    variance: Vec<f64>,
    count: usize,
}

/// y = scale·x + shift, per channel, repeated to the wide row.
#[derive(Clone, Debug)]
pub struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// Where the output was positive.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// No ReLU.
    None,
    /// Recompute the output from the input.
    FromInput(&'a Affine),
    /// The stored output.
    FromOutput(&'a [f32]),
}

/// Gradients of weight and bias.
#[derive(Clone, Debug)]
pub struct ParameterSums {
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl ParameterSums {
    /// Writes or adds the gradient of the weight.
    pub fn weight_into(&self, target: &mut [f32], accumulate: bool) {
        write_sums(&self.weight, target, accumulate);
    }
    /// Writes or adds the gradient of the bias.
    pub fn bias_into(&self, target: &mut [f32], accumulate: bool) {
        write_sums(&self.bias, target, accumulate);
    }
}

fn write_sums(sums: &[f64], target: &mut [f32], accumulate: bool) {
    for (target, sum) in target.iter_mut().zip(sums) {
        *target = if accumulate {
            *target + *sum as f32
        } else {
            *sum as f32
        };
    }
}

impl Statistics {
    /// Statistics of `x` `[rows, channels]`.
    pub fn of(x: &[f32], channels: usize, epsilon: f64) -> Self {
        let first_row = widen(&x[..channels]);
        let (sum, squares) = column_sums(
            x,
            channels,
            #[inline(always)]
            |x, sums, offset| {
                sums_of_differences(x, &first_row, sums, offset);
            },
        );
        let count = x.len() / channels;
        let rows = count as f64;
        let mean = (0..channels)
            .map(|c| (f64::from(x[c]) + sum[c] / rows) as f32)
            .collect();
        let variance: Vec<f64> = sum
            .iter()
            .zip(&squares)
            .map(|(s, q)| (q / rows - (s / rows).powi(2)).max(0.0))
            .collect();
        let inverse_deviation = variance
            .iter()
            .map(|v| (1.0 / (v + epsilon).sqrt()) as f32)
            .collect();
        Self {
            mean,
            inverse_deviation,
            variance,
            count,
        }
    }

    /// Statistics from running estimates.
    pub fn from_running(mean: &[f32], variance: &[f32], epsilon: f64) -> Self {
        let variance: Vec<f64> = variance.iter().map(|v| f64::from(*v)).collect();
        let inverse_deviation = variance
            .iter()
            .map(|v| (1.0 / (v + epsilon).sqrt()) as f32)
            .collect();
        Self {
            mean: mean.to_vec(),
            inverse_deviation,
            variance,
            count: 0,
        }
    }

    /// Moves the running mean by the share `momentum`.
    pub fn update_running_mean(&self, running: &mut [f32], momentum: f64) {
        for (running, mean) in running.iter_mut().zip(&self.mean) {
            *running =
                ((1.0 - momentum) * f64::from(*running) + momentum * f64::from(*mean)) as f32;
        }
    }

    /// Moves the running variance by the share `momentum` of the unbiased variance, as PyTorch does.
    pub fn update_running_var(&self, running: &mut [f32], momentum: f64) {
        let unbiased = self.count as f64 / (self.count - 1) as f64;
        for (running, variance) in running.iter_mut().zip(&self.variance) {
            *running =
                ((1.0 - momentum) * f64::from(*running) + momentum * variance * unbiased) as f32;
        }
    }
}

impl Affine {
    /// scale = γ/√(var+ε), shift = β − mean·scale.
    pub fn new(statistics: &Statistics, weight: &[f32], bias: &[f32]) -> Self {
        let scale: Vec<f32> = statistics
            .inverse_deviation
            .iter()
            .zip(weight)
            .map(|(i, w)| i * w)
            .collect();
        let shift: Vec<f32> = scale
            .iter()
            .zip(&statistics.mean)
            .zip(bias)
            .map(|((scale, mean), bias)| bias - mean * scale)
            .collect();
        Self {
            scale: widen(&scale),
            shift: widen(&shift),
        }
    }
}

/// Repeats a channel vector to the wide row.
fn widen(channels: &[f32]) -> Vec<f32> {
    channels.repeat(BLOCK / gcd(channels.len(), BLOCK))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Task length: about [`CHUNK`] elements, a whole number of wide rows.
fn task_len(wide: usize) -> usize {
    CHUNK.div_ceil(wide) * wide
}

/// `y = relu?(affine(x) + residual)`.
pub fn normalize(affine: &Affine, x: &[f32], residual: Option<&[f32]>, relu: bool, y: &mut [f32]) {
    let task = task_len(affine.scale.len());
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    match residual {
        None => y
            .par_chunks_mut(task)
            .zip(x.par_chunks(task))
            .for_each(|(y, x)| {
                vectorized(
                    #[inline(always)]
                    || normalize_rows(affine, x, floor, y),
                );
            }),
        Some(residual) => {
            y.par_chunks_mut(task)
                .zip(x.par_chunks(task))
                .zip(residual.par_chunks(task))
                .for_each(|((y, x), r)| {
                    vectorized(
                        #[inline(always)]
                        || normalize_rows_with_residual(affine, x, r, floor, y),
                    );
                });
        }
    }
}

/// The larger of value and floor. Unlike `f32::max` it lets a NaN through, so that a diverged run shows.
#[inline(always)]
fn clip(value: f32, floor: f32) -> f32 {
    if value < floor { floor } else { value }
}

#[inline(always)]
fn normalize_rows(affine: &Affine, x: &[f32], floor: f32, y: &mut [f32]) {
    let wide = affine.scale.len();
    for (y, x) in y.chunks_mut(wide).zip(x.chunks(wide)) {
        for (((y, x), scale), shift) in y.iter_mut().zip(x).zip(&affine.scale).zip(&affine.shift) {
            *y = clip(x * scale + shift, floor);
        }
    }
}

#[inline(always)]
fn normalize_rows_with_residual(
    affine: &Affine,
    x: &[f32],
    residual: &[f32],
    floor: f32,
    y: &mut [f32],
) {
    let wide = affine.scale.len();
    for ((y, x), residual) in y
        .chunks_mut(wide)
        .zip(x.chunks(wide))
        .zip(residual.chunks(wide))
    {
        let n = y.len();
        let (x, residual) = (&x[..n], &residual[..n]);
        let (scale, shift) = (&affine.scale[..n], &affine.shift[..n]);
        for c in 0..n {
            y[c] = clip(x[c] * scale[c] + shift[c] + residual[c], floor);
        }
    }
}

/// Replaces `dy` by the gradient of the input, writes the masked `dy` to `masked` if wanted, and returns the gradients of
/// weight and bias.
///
/// With x̂ the normalised input and g the masked gradient over n rows:
/// dx = γ·inverse_deviation·(g − mean(g) − x̂·mean(g·x̂)).
pub fn backward(
    statistics: &Statistics,
    weight: &[f32],
    x: &[f32],
    mask: &Mask<'_>,
    dy: &mut [f32],
    masked: Option<&mut [f32]>,
) -> ParameterSums {
    let channels = weight.len();
    let mean = widen(&statistics.mean);
    let (bias, products) = match *mask {
        Mask::None => column_sums_of_pair(
            x,
            dy,
            x,
            channels,
            #[inline(always)]
            |x, dy, _, sums, o| {
                gradient_sums(
                    x,
                    dy,
                    &mean,
                    sums,
                    o,
                    #[inline(always)]
                    |_, g, _| g,
                )
            },
        ),
        Mask::FromInput(affine) => column_sums_of_pair(
            x,
            dy,
            x,
            channels,
            #[inline(always)]
            |x, dy, _, sums, o| {
                gradient_sums(
                    x,
                    dy,
                    &mean,
                    sums,
                    o,
                    #[inline(always)]
                    |x, g, c| {
                        if x * affine.scale[c] + affine.shift[c] > 0.0 {
                            g
                        } else {
                            0.0
                        }
                    },
                );
            },
        ),
        Mask::FromOutput(y) => column_sums_of_pair(
            x,
            dy,
            y,
            channels,
            #[inline(always)]
            |x, dy, y, sums, o| {
                gradient_sums_by_output(x, dy, y, &mean, sums, o);
            },
        ),
    };
    let weight_gradient: Vec<f64> = products
        .iter()
        .zip(&statistics.inverse_deviation)
        .map(|(p, i)| p * f64::from(*i))
        .collect();
    let map = InputGradient::new(
        statistics,
        weight,
        &weight_gradient,
        &bias,
        x.len() / channels,
    );
    map.apply(x, mask, dy, masked);
    ParameterSums {
        weight: weight_gradient,
        bias,
    }
}

/// dx = slope·g + factor·x + offset, per channel, repeated to the wide row.
struct InputGradient {
    slope: Vec<f32>,
    factor: Vec<f32>,
    offset: Vec<f32>,
}

impl InputGradient {
    fn new(
        statistics: &Statistics,
        weight: &[f32],
        weight_gradient: &[f64],
        bias_gradient: &[f64],
        rows: usize,
    ) -> Self {
        let rows = rows as f64;
        let (mut slope, mut factor, mut offset) = (Vec::new(), Vec::new(), Vec::new());
        for channel in 0..weight.len() {
            let inverse = f64::from(statistics.inverse_deviation[channel]);
            let a = f64::from(weight[channel]) * inverse;
            let b = -a * inverse * weight_gradient[channel] / rows;
            slope.push(a as f32);
            factor.push(b as f32);
            offset.push(
                (-a * bias_gradient[channel] / rows - b * f64::from(statistics.mean[channel]))
                    as f32,
            );
        }
        Self {
            slope: widen(&slope),
            factor: widen(&factor),
            offset: widen(&offset),
        }
    }

    fn apply(&self, x: &[f32], mask: &Mask<'_>, dy: &mut [f32], masked: Option<&mut [f32]>) {
        match *mask {
            Mask::None => self.apply_masked(
                x,
                x,
                #[inline(always)]
                |_, _, _| true,
                dy,
                masked,
            ),
            Mask::FromInput(affine) => {
                self.apply_masked(
                    x,
                    x,
                    #[inline(always)]
                    |x, _, c| x * affine.scale[c] + affine.shift[c] > 0.0,
                    dy,
                    masked,
                );
            }
            Mask::FromOutput(y) => self.apply_masked(
                x,
                y,
                #[inline(always)]
                |_, y, _| y > 0.0,
                dy,
                masked,
            ),
        }
    }

    fn apply_masked(
        &self,
        x: &[f32],
        y: &[f32],
        positive: impl Fn(f32, f32, usize) -> bool + Sync,
        dy: &mut [f32],
        masked: Option<&mut [f32]>,
    ) {
        let task = task_len(self.slope.len());
        let tasks = dy
            .par_chunks_mut(task)
            .zip(x.par_chunks(task))
            .zip(y.par_chunks(task));
        match masked {
            None => tasks.for_each(|((dy, x), y)| {
                vectorized(
                    #[inline(always)]
                    || self.rows(x, y, &positive, dy),
                )
            }),
            Some(masked) => {
                tasks
                    .zip(masked.par_chunks_mut(task))
                    .for_each(|(((dy, x), y), masked)| {
                        vectorized(
                            #[inline(always)]
                            || self.rows_with_masked(x, y, &positive, dy, masked),
                        );
                    })
            }
        }
    }

    #[inline(always)]
    fn rows(
        &self,
        x: &[f32],
        y: &[f32],
        positive: &impl Fn(f32, f32, usize) -> bool,
        dy: &mut [f32],
    ) {
        let wide = self.slope.len();
        for ((dy, x), y) in dy.chunks_mut(wide).zip(x.chunks(wide)).zip(y.chunks(wide)) {
            let n = dy.len();
            let (x, y) = (&x[..n], &y[..n]);
            let (slope, factor, offset) = (&self.slope[..n], &self.factor[..n], &self.offset[..n]);
            for c in 0..n {
                let gradient = if positive(x[c], y[c], c) { dy[c] } else { 0.0 };
                dy[c] = slope[c] * gradient + factor[c] * x[c] + offset[c];
            }
        }
    }

    #[inline(always)]
    fn rows_with_masked(
        &self,
        x: &[f32],
        y: &[f32],
        positive: &impl Fn(f32, f32, usize) -> bool,
        dy: &mut [f32],
        masked: &mut [f32],
    ) {
        let wide = self.slope.len();
        for (((dy, x), y), masked) in dy
            .chunks_mut(wide)
            .zip(x.chunks(wide))
            .zip(y.chunks(wide))
            .zip(masked.chunks_mut(wide))
        {
            let n = dy.len();
            let (x, y, masked) = (&x[..n], &y[..n], &mut masked[..n]);
            let (slope, factor, offset) = (&self.slope[..n], &self.factor[..n], &self.offset[..n]);
            for c in 0..n {
                let gradient = if positive(x[c], y[c], c) { dy[c] } else { 0.0 };
                masked[c] = gradient;
                dy[c] = slope[c] * gradient + factor[c] * x[c] + offset[c];
            }
        }
    }
}

/// Two sums for each of [`BLOCK`] columns.
type BlockSums = [[f32; BLOCK]; 2];

#[inline(always)]
fn block(row: &[f32], offset: usize) -> &[f32; BLOCK] {
    row[offset..]
        .first_chunk()
        .expect("wide rows are whole blocks")
}

#[inline(always)]
fn sums_of_differences(x: &[f32], origin: &[f32], sums: &mut BlockSums, offset: usize) {
    let [sum, squares] = sums;
    let origin_block = block(origin, offset);
    for row in x.chunks_exact(origin.len()) {
        let row = block(row, offset);
        for c in 0..BLOCK {
            let difference = row[c] - origin_block[c];
            sum[c] += difference;
            squares[c] += difference * difference;
        }
    }
}

#[inline(always)]
fn gradient_sums(
    x: &[f32],
    dy: &[f32],
    mean: &[f32],
    sums: &mut BlockSums,
    offset: usize,
    masked: impl Fn(f32, f32, usize) -> f32,
) {
    let [sum, products] = sums;
    let mean_block = block(mean, offset);
    for (x, dy) in x.chunks_exact(mean.len()).zip(dy.chunks_exact(mean.len())) {
        let (x, dy) = (block(x, offset), block(dy, offset));
        for c in 0..BLOCK {
            let gradient = masked(x[c], dy[c], offset + c);
            sum[c] += gradient;
            products[c] += gradient * (x[c] - mean_block[c]);
        }
    }
}

#[inline(always)]
fn gradient_sums_by_output(
    x: &[f32],
    dy: &[f32],
    y: &[f32],
    mean: &[f32],
    sums: &mut BlockSums,
    offset: usize,
) {
    let [sum, products] = sums;
    let (wide, mean_block) = (mean.len(), block(mean, offset));
    for ((x, dy), y) in x
        .chunks_exact(wide)
        .zip(dy.chunks_exact(wide))
        .zip(y.chunks_exact(wide))
    {
        let (x, dy, y) = (block(x, offset), block(dy, offset), block(y, offset));
        for c in 0..BLOCK {
            let gradient = if y[c] > 0.0 { dy[c] } else { 0.0 };
            sum[c] += gradient;
            products[c] += gradient * (x[c] - mean_block[c]);
        }
    }
}

/// Sums columns of one slice; see [`column_sums_of_pair`].
fn column_sums(
    x: &[f32],
    channels: usize,
    kernel: impl Fn(&[f32], &mut BlockSums, usize) + Sync,
) -> (Vec<f64>, Vec<f64>) {
    column_sums_of_pair(
        x,
        x,
        x,
        channels,
        #[inline(always)]
        |x, _, _, sums, offset| kernel(x, sums, offset),
    )
}

/// Runs `kernel` on every task and block of columns, and folds the two sums to channels. The kernel sees whole wide rows
/// only; the rows left over are summed on a padded copy.
fn column_sums_of_pair(
    x: &[f32],
    dy: &[f32],
    y: &[f32],
    channels: usize,
    kernel: impl Fn(&[f32], &[f32], &[f32], &mut BlockSums, usize) + Sync,
) -> (Vec<f64>, Vec<f64>) {
    let wide = channels * (BLOCK / gcd(channels, BLOCK));
    let whole = x.len() / wide * wide;
    let task = task_len(wide);
    let tasks = x[..whole]
        .par_chunks(task)
        .zip(dy[..whole].par_chunks(task))
        .zip(y[..whole].par_chunks(task));
    let mut partials: Vec<Vec<BlockSums>> = tasks
        .map(|((x, dy), y)| {
            vectorized(
                #[inline(always)]
                || sum_blocks(x, dy, y, wide, &kernel),
            )
        })
        .collect();
    let rest = x.len() - whole;
    if rest > 0 {
        partials.push(sum_rest(
            &x[whole..],
            &dy[whole..],
            &y[whole..],
            channels,
            wide,
            &kernel,
        ));
    }
    let (mut first, mut second) = (vec![0.0; channels], vec![0.0; channels]);
    for column in partials.iter().flat_map(|blocks| blocks.iter().enumerate()) {
        let (index, [sums, others]) = column;
        for c in 0..BLOCK {
            let channel = (index * BLOCK + c) % channels;
            first[channel] += f64::from(sums[c]);
            second[channel] += f64::from(others[c]);
        }
    }
    (first, second)
}

#[inline(always)]
fn sum_blocks(
    x: &[f32],
    dy: &[f32],
    y: &[f32],
    wide: usize,
    kernel: &impl Fn(&[f32], &[f32], &[f32], &mut BlockSums, usize),
) -> Vec<BlockSums> {
    (0..wide / BLOCK)
        .map(
            #[inline(always)]
            |index| {
                let mut sums = [[0.0; BLOCK]; 2];
                kernel(x, dy, y, &mut sums, index * BLOCK);
                sums
            },
        )
        .collect()
}

/// The rows that do not fill a wide row: padded to one, summed, and only the real columns kept.
fn sum_rest(
    x: &[f32],
    dy: &[f32],
    y: &[f32],
    channels: usize,
    wide: usize,
    kernel: &impl Fn(&[f32], &[f32], &[f32], &mut BlockSums, usize),
) -> Vec<BlockSums> {
    debug_assert_eq!(x.len() % channels, 0);
    let pad = |values: &[f32]| [values, &vec![0.0; wide - values.len()]].concat();
    let mut blocks = sum_blocks(&pad(x), &pad(dy), &pad(y), wide, kernel);
    for column in x.len()..wide {
        for sums in &mut blocks[column / BLOCK] {
            sums[column % BLOCK] = 0.0;
        }
    }
    blocks
}
