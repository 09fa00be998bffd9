//! Batch normalisation pass by pass: GB/s of what is read and written, beside a copy of the same memory. Every pass takes
//! another of a few maps, as in a step, where others have come and gone since a map was last in cache.
//!
//! `cargo bench -p eqco-models --bench batch_norm -- [--threads N] [--only PART_OF_A_NAME]`

mod command_line;

use std::hint::black_box;
use std::time::Instant;

use candle_core::DType;
use eqco_models::ops::batch_norm::portable::{Affine, Mask, Statistics, backward, normalize};
use eqco_models::ops::element::{Element, ElementVisitor, visit_element};
use rayon::prelude::*;

/// Name, pixels of all images, channels.
const SHAPES: [(&str, usize, usize); 6] = [
    ("16 at 32, 64", 64 * 32 * 32, 16),
    ("64 at 32, 64", 64 * 32 * 32, 64),
    ("128 at 16, 64", 64 * 16 * 16, 128),
    ("512 at 4, 64", 64 * 4 * 4, 512),
    ("64 at 112, 8", 8 * 112 * 112, 64),
    ("256 at 56, 8", 8 * 56 * 56, 256),
];

/// Maps that take turns.
const MAPS: usize = 6;
const EPSILON: f64 = 1e-5;

fn main() {
    let only = command_line::read();
    println!(
        "{:15} {:5} {:>9} {:>10} {:>9} {:>9} {:>9} {:>13}",
        "GB/s", "", "copy", "statistics", "normalize", "+ add", "backward", "with residual"
    );
    for (name, rows, channels) in SHAPES {
        for dtype in [DType::F32, DType::BF16] {
            if !name.contains(&only) {
                continue;
            }
            let rates = visit_element(dtype, Passes { rows, channels });
            let rates = rates.expect("f32 and bf16 are elements");
            let dtype = format!("{dtype:?}").to_lowercase();
            let [copy, statistics, normalize, add, backward, residual] = rates;
            println!(
                "{name:15} {dtype:5} {copy:9.1} {statistics:10.1} {normalize:9.1} {add:9.1} {backward:9.1} {residual:13.1}"
            );
        }
    }
}

/// GB/s of a copy and of the passes over maps of one shape.
struct Passes {
    rows: usize,
    channels: usize,
}

impl ElementVisitor for Passes {
    type Output = [f64; 6];

    fn visit<T: Element>(self) -> [f64; 6] {
        let Self { rows, channels } = self;
        let elements = rows * channels;
        let map = |seed: usize| -> Vec<T> {
            (0..elements)
                .map(|i| T::store(((i + seed) * 7919 % 1000) as f32 / 1000.0 - 0.5))
                .collect()
        };
        let inputs: Vec<Vec<T>> = (0..MAPS).map(map).collect();
        let (mut targets, mut residuals) = (inputs.clone(), inputs.clone());
        let statistics = Statistics::of(&inputs[0], channels, EPSILON);
        let weight = vec![1.0; channels];
        let affine = Affine::new(&statistics, &weight, &weight);
        let rate = |arrays: usize, seconds: f64| {
            (arrays * elements * size_of::<T>()) as f64 / seconds / 1e9
        };
        [
            rate(
                2,
                seconds(|map| {
                    let target = targets[map].par_chunks_mut(1 << 14);
                    let source = inputs[map].par_chunks(1 << 14);
                    target.zip(source).for_each(|(t, s)| t.copy_from_slice(s));
                }),
            ),
            rate(
                1,
                seconds(|map| {
                    black_box(Statistics::of(&inputs[map], channels, EPSILON));
                }),
            ),
            rate(
                2,
                seconds(|map| normalize(&affine, &inputs[map], None, true, &mut targets[map])),
            ),
            rate(
                3,
                seconds(|map| {
                    let residual = Some(&residuals[map][..]);
                    normalize(&affine, &inputs[map], residual, true, &mut targets[map]);
                }),
            ),
            rate(
                5,
                seconds(|map| {
                    let mask = Mask::FromInput(&affine);
                    let (x, dy) = (&inputs[map], &mut targets[map]);
                    black_box(backward(&statistics, &weight, x, mask, dy));
                }),
            ),
            rate(
                8,
                seconds(|map| {
                    let mask = Mask::FromOutput(&mut residuals[map]);
                    let (x, dy) = (&inputs[map], &mut targets[map]);
                    black_box(backward(&statistics, &weight, x, mask, dy));
                }),
            ),
        ]
    }
}

/// Median over a few rounds of the time that one pass takes.
fn seconds(mut pass: impl FnMut(usize)) -> f64 {
    let mut seconds: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            (0..MAPS).for_each(&mut pass);
            start.elapsed().as_secs_f64() / MAPS as f64
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[4]
}
