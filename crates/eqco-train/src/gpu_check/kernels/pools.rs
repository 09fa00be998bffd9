//! Max pooling, with ties too, and global average pooling.

use candle_core::{DType, Tensor};
use eqco_models::ops::average_pool::global_average_pool;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::ops::max_pool::max_pool;

use super::pass::Operation;
use super::{KernelCheck, ONE_ROUNDING_OF_BF16, SUMS_IN_F32, formats};
use crate::gpu_check::random::Draw;

pub(super) fn checks(seed: u64, most: usize) -> Vec<KernelCheck> {
    let mut checks = Vec::new();
    let mut draw = Draw::new(seed, "pools");
    for channels in [draw.odd(3, 21), 8 * draw.between(1, 8)] {
        for levels in [None, Some(2.0)] {
            let maps = draw.maps(channels, most);
            // Nothing is computed but sums of at most four gradients, in one order.
            for format in formats(0.0, 0.0) {
                checks.push(largest(seed, maps, channels, levels, format));
            }
        }
        let maps = draw.maps(channels, most);
        for format in formats(SUMS_IN_F32, ONE_ROUNDING_OF_BF16) {
            checks.push(average(seed, maps, channels, format));
        }
        for format in formats(SUMS_IN_F32, 2.0 * ONE_ROUNDING_OF_BF16) {
            checks.push(twice(seed, maps, channels, format));
        }
    }
    checks
}

/// Images rounded down to so many levels a unit, if that is given.
fn images(seed: u64, shape: &[usize], levels: Option<f64>) -> anyhow::Result<Tensor> {
    let images = Draw::new(seed, "images").tensor(shape, -1.0, 1.0)?;
    match levels {
        None => Ok(images),
        Some(levels) => Ok((images * levels)?.floor()?),
    }
}

/// With levels nearly every window holds its maximum more than once.
fn largest(
    seed: u64,
    [batch, height, width]: [usize; 3],
    channels: usize,
    levels: Option<f64>,
    format: (DType, f64),
) -> KernelCheck {
    let ties = if levels.is_some() { " with ties" } else { "" };
    let name = format!(
        "max{ties}, {batch}x{height}x{width}x{channels}, {:?}",
        format.0
    );
    KernelCheck::new(name, move |place| {
        let images = images(seed, &[batch, height, width, channels], levels)?;
        Operation::new(
            seed,
            vec![images],
            |_| Ok(()),
            |tape, (), x| max_pool(tape, &x[0]),
        )
        .with_format(format)
        .differentiate(place)
    })
}

fn average(
    seed: u64,
    [batch, height, width]: [usize; 3],
    channels: usize,
    format: (DType, f64),
) -> KernelCheck {
    let name = format!(
        "average, {batch}x{height}x{width}x{channels}, {:?}",
        format.0
    );
    KernelCheck::new(name, move |place| {
        let images = images(seed, &[batch, height, width, channels], None)?;
        Operation::new(
            seed,
            vec![images],
            |_| Ok(()),
            |tape, (), x| global_average_pool(tape, &x[0]),
        )
        .with_format(format)
        .differentiate(place)
    })
}

/// Two poolings of one input, whose gradients add up.
fn twice(
    seed: u64,
    [batch, height, width]: [usize; 3],
    channels: usize,
    format: (DType, f64),
) -> KernelCheck {
    let name = format!(
        "max twice, {batch}x{height}x{width}x{channels}, {:?}",
        format.0
    );
    KernelCheck::new(name, move |place| {
        let images = images(seed, &[batch, height, width, channels], None)?;
        Operation::new(
            seed,
            vec![images],
            |builder| BatchNorm::new(builder, "norm", channels, 1.0),
            |tape, norm, x| {
                let (first, second) = (max_pool(tape, &x[0])?, max_pool(tape, &x[0])?);
                norm.forward(tape, &first, Some(&second), Activate::Linear)
            },
        )
        .with_format(format)
        .differentiate(place)
    })
}
