//! Convolutions: all kernels and strides of ResNets, images that are not square, few channels and odd ones.

use anyhow::Result;
use candle_core::DType;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::ops::conv2d::conv2d;
use eqco_models::params::{Parameter, ParameterBuilder};
use eqco_models::tape::{Activation, Tape};

use super::pass::Operation;
use super::{KernelCheck, ONE_ROUNDING_OF_BF16, SUMS_IN_F32, formats};
use crate::gpu_check::random::Draw;

/// Kernel, stride, and padding.
const WINDOWS: [[usize; 3]; 5] = [[1, 1, 0], [1, 2, 0], [3, 1, 1], [3, 2, 1], [7, 2, 3]];

pub(super) fn checks(seed: u64, most: usize) -> Vec<KernelCheck> {
    let mut checks = Vec::new();
    for window @ [kernel, stride, _] in WINDOWS {
        for layout in ["few channels", "odd channels", "whole vectors"] {
            let mut draw = Draw::new(seed, &format!("{kernel} {stride} {layout}"));
            let channels = match layout {
                "few channels" => [3, 8 * draw.between(1, 4)],
                "odd channels" => [0; 2].map(|_| draw.odd(5, 37)),
                _ => [0; 2].map(|_| 16 * draw.between(1, 4)),
            };
            let maps = draw.maps(channels[0].max(channels[1]), most);
            for format in formats(SUMS_IN_F32, ONE_ROUNDING_OF_BF16) {
                checks.push(once(seed, window, channels, maps, format));
            }
        }
    }
    // The first layers of networks, which take other ways where nobody wants the images' gradient.
    for window @ [kernel, ..] in [[3, 1, 1], [7, 2, 3]] {
        let mut draw = Draw::new(seed, &format!("images {kernel}"));
        let channels = [3, 8 * draw.between(1, 8)];
        let maps = draw.maps(channels[1], most);
        for format in formats(SUMS_IN_F32, ONE_ROUNDING_OF_BF16) {
            checks.push(of_images(seed, window, channels, maps, format));
        }
    }
    let mut draw = Draw::new(seed, "twice");
    let maps = draw.maps(16, most);
    // Two kernels in a row.
    for format in formats(2.0 * SUMS_IN_F32, 2.0 * ONE_ROUNDING_OF_BF16) {
        checks.push(twice(seed, maps, format));
    }
    checks
}

fn once(
    seed: u64,
    window: [usize; 3],
    channels: [usize; 2],
    maps: [usize; 3],
    format: (DType, f64),
) -> KernelCheck {
    let name = name(window, channels, maps, format.0);
    KernelCheck::new(name, move |place| {
        operation(seed, window, channels, maps)?
            .with_format(format)
            .differentiate(place)
    })
}

/// Without the gradient of the input.
fn of_images(
    seed: u64,
    window: [usize; 3],
    channels: [usize; 2],
    maps: [usize; 3],
    format: (DType, f64),
) -> KernelCheck {
    let name = name(window, channels, maps, format.0);
    KernelCheck::new(format!("images, {name}"), move |place| {
        operation(seed, window, channels, maps)?
            .of_constants()
            .with_format(format)
            .differentiate(place)
    })
}

fn name(
    [kernel, stride, _]: [usize; 3],
    [inputs, outputs]: [usize; 2],
    [batch, height, width]: [usize; 3],
    dtype: DType,
) -> String {
    format!(
        "{kernel}x{kernel} s{stride}, {batch}x{height}x{width}x{inputs} to {outputs}, {dtype:?}"
    )
}

type Convolution = Operation<
    Parameter,
    Box<dyn Fn(&mut ParameterBuilder) -> candle_core::Result<Parameter>>,
    Box<dyn Fn(&mut Tape, &Parameter, &[Activation]) -> candle_core::Result<Activation>>,
>;

fn operation(
    seed: u64,
    [kernel, stride, padding]: [usize; 3],
    [inputs, outputs]: [usize; 2],
    [batch, height, width]: [usize; 3],
) -> Result<Convolution> {
    let shape = [batch, height, width, inputs];
    let images = Draw::new(seed, "images").tensor(&shape, -1.0, 1.0)?;
    Ok(Operation::new(
        seed,
        vec![images],
        Box::new(move |builder: &mut ParameterBuilder| {
            builder.conv_weight("weight", outputs, inputs, kernel)
        }),
        Box::new(
            move |tape: &mut Tape, weight: &Parameter, x: &[Activation]| {
                conv2d(tape, &x[0], weight, stride, padding)
            },
        ),
    ))
}

/// One weight, twice over one input: its gradients and the input's add up.
fn twice(seed: u64, [batch, height, width]: [usize; 3], format: (DType, f64)) -> KernelCheck {
    const CHANNELS: usize = 16;
    let name = format!(
        "3x3 twice, {batch}x{height}x{width}x{CHANNELS}, {:?}",
        format.0
    );
    KernelCheck::new(name, move |place| {
        let shape = [batch, height, width, CHANNELS];
        let images = Draw::new(seed, "images").tensor(&shape, -1.0, 1.0)?;
        Operation::new(
            seed,
            vec![images],
            |builder| {
                let weight = builder.conv_weight("weight", CHANNELS, CHANNELS, 3)?;
                Ok((weight, BatchNorm::new(builder, "norm", CHANNELS, 1.0)?))
            },
            |tape, (weight, norm), x| {
                let first = conv2d(tape, &x[0], weight, 1, 1)?;
                let second = conv2d(tape, &x[0], weight, 1, 1)?;
                norm.forward(tape, &first, Some(&second), Activate::Linear)
            },
        )
        .with_format(format)
        .differentiate(place)
    })
}
