//! Linear layers and the normalisation of embeddings, which are f32 always.

use candle_core::DType;
use eqco_models::ops::linear::linear;
use eqco_models::ops::normalize::l2_normalize;

use super::pass::Operation;
use super::{KernelCheck, SUMS_IN_F32};
use crate::gpu_check::random::Draw;

pub(super) fn checks(seed: u64, most: usize) -> Vec<KernelCheck> {
    let mut draw = Draw::new(seed, "linear");
    let widest = ((most as f64).sqrt() as usize).clamp(65, 513);
    let mut checks = Vec::new();
    for is_biased in [false, true] {
        let odd = [0; 3].map(|_| draw.odd(33, widest));
        // Few rows take another way on the CPU.
        for sizes in [odd, [1, 6, 4], [16, 64, 128]] {
            checks.push(layer(seed, sizes, is_biased));
        }
    }
    for shape in [[draw.odd(3, 65), draw.odd(5, 255)], [16, 128]] {
        checks.push(unit_rows(seed, shape));
    }
    checks
}

fn layer(seed: u64, [rows, inputs, outputs]: [usize; 3], is_biased: bool) -> KernelCheck {
    let bias = if is_biased { " + bias" } else { "" };
    let name = format!("{rows}x{inputs} to {outputs}{bias}");
    KernelCheck::new(name, move |place| {
        let x = Draw::new(seed, "input").tensor(&[rows, inputs], -1.0, 1.0)?;
        Operation::new(
            seed,
            vec![x],
            |builder| {
                let weight = builder.linear_weight("weight", outputs, inputs)?;
                let bias = is_biased.then(|| builder.bias("bias", outputs, inputs));
                Ok((weight, bias.transpose()?))
            },
            |tape, (weight, bias), x| linear(tape, &x[0], weight, bias.as_ref()),
        )
        .with_format((DType::F32, SUMS_IN_F32))
        .differentiate(place)
    })
}

fn unit_rows(seed: u64, shape @ [rows, columns]: [usize; 2]) -> KernelCheck {
    let name = format!("rows of length 1, {rows}x{columns}");
    KernelCheck::new(name, move |place| {
        let x = Draw::new(seed, "rows").tensor(&shape, -1.0, 1.0)?;
        Operation::new(
            seed,
            vec![x],
            |_| Ok(()),
            |tape, (), x| l2_normalize(tape, &x[0]),
        )
        .with_format((DType::F32, SUMS_IN_F32))
        .differentiate(place)
    })
}
