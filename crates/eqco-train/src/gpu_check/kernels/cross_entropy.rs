//! Cross-entropy of rows of logits.

use eqco_models::ops::cross_entropy::cross_entropy;

use super::pass::Operation;
use super::{KernelCheck, SUMS_IN_F32, formats};
use crate::gpu_check::random::Draw;

pub(super) fn checks(seed: u64) -> Vec<KernelCheck> {
    let mut draw = Draw::new(seed, "cross-entropy");
    let shapes = [
        [draw.odd(3, 99), draw.odd(3, 31)],
        [draw.odd(3, 33), draw.odd(999, 1999)],
        [1, 1],
    ];
    shapes.map(|shape| one(seed, shape)).into()
}

fn one(seed: u64, shape @ [rows, classes]: [usize; 2]) -> KernelCheck {
    let [format, _] = formats(SUMS_IN_F32, 0.0);
    KernelCheck::new(format!("{rows}x{classes}"), move |place| {
        let mut draw = Draw::new(seed, "logits");
        // Beyond what f32 can raise e to.
        let logits = draw.tensor(&shape, -100.0, 100.0)?;
        let labels: Vec<u32> = (0..rows)
            .map(|_| draw.between(0, classes - 1) as u32)
            .collect();
        Operation::new(
            seed,
            vec![logits],
            |_| Ok(()),
            move |tape, (), x| cross_entropy(tape, &x[0], &labels),
        )
        .with_format(format)
        .differentiate(place)
    })
}
