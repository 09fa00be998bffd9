//! Sums over the rows of `[rows, channels]`, two at a time, for every channel.
//!
//! Rows are taken as wide rows of lcm(channels, [`BLOCK`]) elements, so that few-channel layers still fill the vector
//! units, and the sums of a block of columns stay in registers. Sums are f32 within a task and f64 across tasks.

use rayon::prelude::*;

use super::statistics::gcd;
use super::task_len;
use crate::ops::element::Element;
use crate::ops::lanes::vectorized;

/// Columns whose sums are held in registers at a time.
pub(super) const BLOCK: usize = 32;

/// Two sums for each column of a block.
type BlockSums = [[f32; BLOCK]; 2];

/// Sums the two terms that `terms` makes of the elements of three slices (`[rows, channels]` each; the same slice may be
/// given several times) and of three constants of their column (`[wide row]` each). `terms` must be `#[inline(always)]`.
pub(super) fn column_sums<T: Element>(
    slices: [&[T]; 3],
    constants: [&[f32]; 3],
    channels: usize,
    terms: impl Fn([f32; 3], [f32; 3]) -> [f32; 2] + Sync,
) -> (Vec<f64>, Vec<f64>) {
    let wide = channels * (BLOCK / gcd(channels, BLOCK));
    let (whole, task) = (slices[0].len() / wide * wide, task_len(wide));
    let [a, b, c] = slices.map(|slice| slice[..whole].par_chunks(task));
    let mut partials: Vec<Vec<BlockSums>> = a
        .zip(b)
        .zip(c)
        .map(|((a, b), c)| {
            vectorized(
                #[inline(always)]
                || sum_blocks([a, b, c], constants, wide, &terms),
            )
        })
        .collect();
    if whole < slices[0].len() {
        let rest = slices.map(|slice| &slice[whole..]);
        partials.push(sum_rest(rest, constants, wide, &terms));
    }
    fold(&partials, channels)
}

/// Adds up the sums of all tasks and of all columns that belong to a channel.
fn fold(partials: &[Vec<BlockSums>], channels: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut first, mut second) = (vec![0.0; channels], vec![0.0; channels]);
    for (index, [sums, others]) in partials.iter().flat_map(|blocks| blocks.iter().enumerate()) {
        for column in 0..BLOCK {
            let channel = (index * BLOCK + column) % channels;
            first[channel] += f64::from(sums[column]);
            second[channel] += f64::from(others[column]);
        }
    }
    (first, second)
}

#[inline(always)]
fn sum_blocks<T: Element>(
    slices: [&[T]; 3],
    constants: [&[f32]; 3],
    wide: usize,
    terms: &impl Fn([f32; 3], [f32; 3]) -> [f32; 2],
) -> Vec<BlockSums> {
    let mut blocks = Vec::with_capacity(wide / BLOCK);
    // A loop, not `map` and `collect`: their closure would not be inlined and so not be vectorised.
    for offset in (0..wide).step_by(BLOCK) {
        let [mut first, mut second] = [[0.0; BLOCK]; 2];
        // Blocks of known length: a bound to check in the inner loop would stop its vectorisation.
        let [p, q, r] = [
            block(constants[0], offset),
            block(constants[1], offset),
            block(constants[2], offset),
        ];
        for start in (offset..slices[0].len()).step_by(wide) {
            let [a, b, c] = [
                block(slices[0], start),
                block(slices[1], start),
                block(slices[2], start),
            ];
            for column in 0..BLOCK {
                let loaded = [a[column].load(), b[column].load(), c[column].load()];
                let [x, y] = terms(loaded, [p[column], q[column], r[column]]);
                first[column] += x;
                second[column] += y;
            }
        }
        blocks.push([first, second]);
    }
    blocks
}

#[inline(always)]
fn block<T>(slice: &[T], start: usize) -> &[T; BLOCK] {
    slice[start..]
        .first_chunk()
        .expect("tasks are whole wide rows")
}

/// The rows that do not fill a wide row: padded to one, summed, and only the real columns kept.
fn sum_rest<T: Element>(
    slices: [&[T]; 3],
    constants: [&[f32]; 3],
    wide: usize,
    terms: &impl Fn([f32; 3], [f32; 3]) -> [f32; 2],
) -> Vec<BlockSums> {
    let real = slices[0].len();
    let padded = slices.map(|slice| [slice, &vec![T::ZERO; wide - real]].concat());
    let mut blocks = sum_blocks([&padded[0], &padded[1], &padded[2]], constants, wide, terms);
    for column in real..wide {
        for sums in &mut blocks[column / BLOCK] {
            sums[column % BLOCK] = 0.0;
        }
    }
    blocks
}
