//! ReLU on its own, as heads have it.

use candle_core::DType;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::ops::relu::relu;

use super::pass::Operation;
use super::{KernelCheck, ONE_ROUNDING_OF_BF16, SUMS_IN_F32, formats};
use crate::gpu_check::random::Draw;

pub(super) fn checks(seed: u64, most: usize) -> Vec<KernelCheck> {
    let mut checks = Vec::new();
    let mut draw = Draw::new(seed, "relu");
    for columns in [draw.odd(5, 99), 8 * draw.between(1, 32)] {
        let rows = draw.odd(17, (most / columns).clamp(17, 9999));
        // Values are copied or replaced by 0.
        for format in formats(0.0, 0.0) {
            checks.push(once(seed, [rows, columns], format));
        }
        for format in formats(SUMS_IN_F32, 2.0 * ONE_ROUNDING_OF_BF16) {
            checks.push(twice(seed, [rows, columns], format));
        }
    }
    checks
}

fn once(seed: u64, shape @ [rows, columns]: [usize; 2], format: (DType, f64)) -> KernelCheck {
    let name = format!("{rows}x{columns}, {:?}", format.0);
    KernelCheck::new(name, move |place| {
        let values = Draw::new(seed, "values").tensor(&shape, -1.0, 1.0)?;
        Operation::new(
            seed,
            vec![values],
            |_| Ok(()),
            |tape, (), x| relu(tape, &x[0]),
        )
        .with_format(format)
        .differentiate(place)
    })
}

/// Two of one input: the second finished gradient is added to the first.
fn twice(seed: u64, shape @ [rows, columns]: [usize; 2], format: (DType, f64)) -> KernelCheck {
    let name = format!("twice, {rows}x{columns}, {:?}", format.0);
    KernelCheck::new(name, move |place| {
        let values = Draw::new(seed, "values").tensor(&shape, -1.0, 1.0)?;
        Operation::new(
            seed,
            vec![values],
            |builder| BatchNorm::new(builder, "norm", columns, 1.0),
            |tape, norm, x| {
                let (first, second) = (relu(tape, &x[0])?, relu(tape, &x[0])?);
                norm.forward(tape, &first, Some(&second), Activate::Linear)
            },
        )
        .with_format(format)
        .differentiate(place)
    })
}
