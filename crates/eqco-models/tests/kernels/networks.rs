//! Whole networks against float64 PyTorch, and their names and shapes against torchvision's.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::ops::normalize::l2_normalize;
use eqco_models::params::{ParameterBuilder, ParameterSet};
use eqco_models::projection_head::{HeadKind, ProjectionHead, ProjectionHeadConfig};
use eqco_models::resnet::{Architecture, EncoderConfig, ResNet, Stem};
use eqco_models::tape::{Activation, Mode};

use crate::differentiate::{Differentiated, declare, differentiate};
use crate::families::on_every_family;
use crate::golden::{FOLDER, Golden};
use crate::hashed::{hashed, hashed_between};

/// Bounds relative to the largest value (scalar products: to the Euclidean norm).
#[derive(Clone, Copy)]
struct Tolerance {
    forward: f64,
    gradient: f64,
}

/// Up to seventeen layers of f32.
const SHALLOW: Tolerance = Tolerance {
    forward: 1e-5,
    gradient: 3e-5,
};
/// Fifty-three layers, the last of which normalise over sixteen values a channel, which amplifies rounding: PyTorch's own
/// f32 differs from its float64 by 3e-5 forward and 1e-4 in the gradients.
const DEEP: Tolerance = Tolerance {
    forward: 1e-4,
    gradient: 5e-4,
};

const SHOWN_GRADIENTS: [&str; 5] = [
    "conv1.weight",
    "bn1.bias",
    "layer1.0.bn2.weight",
    "layer2.0.downsample.1.bias",
    "layer4.1.bn1.weight",
];

/// Weights uniform with He's deviation by fan-in, the rest near its usual values: `fill_with_hashes` in `golden_ops.py`.
fn fill_with_hashes(prefix: &str, set: &ParameterSet) -> Result<()> {
    let mut filled = HashMap::new();
    for (name, tensor) in set.to_named()? {
        let shape = tensor.dims();
        let (low, high) = if shape.len() > 1 {
            let bound = (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
            (-bound, bound)
        } else if name.ends_with(".weight") || name.ends_with("running_var") {
            (0.5, 1.5)
        } else {
            (-0.25, 0.25)
        };
        let values = hashed_between(&format!("{prefix}.{name}"), shape, low, high)?;
        filled.insert(name, values);
    }
    set.load_named("", &filled)
}

fn check_gradients_and_buffers(
    golden: &Golden,
    prefix: &str,
    set: &ParameterSet,
    pass: &Differentiated,
    tolerance: Tolerance,
) -> Result<()> {
    for (name, gradient) in &pass.parameters {
        let stored = format!("{prefix}.{name}.gradient");
        let vectors = format!("{prefix}.{name}");
        golden.check_projected(&stored, &vectors, gradient, tolerance.gradient)?;
        if SHOWN_GRADIENTS.contains(&name.as_str()) {
            golden.check(&stored, gradient, tolerance.gradient)?;
        }
    }
    set.buffers().iter().try_for_each(|buffer| {
        golden.check(
            &format!("{prefix}.{}", buffer.name()),
            buffer.value(),
            tolerance.forward,
        )
    })
}

fn check_network(
    golden: &Golden,
    prefix: &str,
    config: &EncoderConfig,
    shape: [usize; 4],
    tolerance: Tolerance,
) -> Result<()> {
    let (network, set) = declare(|b| ResNet::new(config, b))?;
    fill_with_hashes(prefix, &set)?;
    let images = hashed(&format!("{prefix}.images"), &shape)?;

    let mut tape = crate::families::tape(Mode::Evaluation, &BufferPool::new(&Device::Cpu));
    let evaluated = network.forward(&mut tape, &Activation::constant(&images)?)?;
    golden.check(
        &format!("{prefix}.evaluated"),
        &evaluated.to_tensor()?,
        tolerance.forward,
    )?;

    let gradient = format!("{prefix}.output_gradient");
    let pass = differentiate(
        &set,
        &[images],
        |shape| hashed(&gradient, shape),
        &|tape, x| network.forward(tape, &x[0]),
    )?;
    golden.check(
        &format!("{prefix}.representation"),
        &pass.output,
        tolerance.forward,
    )?;
    golden.check(
        &format!("{prefix}.image_gradient"),
        &pass.inputs[0],
        tolerance.gradient,
    )?;
    check_gradients_and_buffers(golden, prefix, &set, &pass, tolerance)
}

fn check_head(golden: &Golden, prefix: &str, kind: HeadKind) -> Result<()> {
    let config = ProjectionHeadConfig {
        kind,
        hidden_dim: 12,
        embedding_dim: 7,
    };
    let (head, set) = declare(|b| ProjectionHead::new(&config, 10, b))?;
    fill_with_hashes(prefix, &set)?;
    let representation = hashed(&format!("{prefix}.representation"), &[6, 10])?;
    let gradient = format!("{prefix}.output_gradient");
    let pass = differentiate(
        &set,
        &[representation],
        |shape| hashed(&gradient, shape),
        &|tape, x| {
            let embedding = head.forward(tape, &x[0])?;
            l2_normalize(tape, &embedding)
        },
    )?;
    golden.check(
        &format!("{prefix}.embedding"),
        &pass.output,
        SHALLOW.forward,
    )?;
    golden.check(
        &format!("{prefix}.representation_gradient"),
        &pass.inputs[0],
        SHALLOW.gradient,
    )?;
    check_gradients_and_buffers(golden, prefix, &set, &pass, SHALLOW)
}

#[test]
fn networks_and_heads_agree_with_pytorch() -> Result<()> {
    on_every_family(|| {
        let golden = Golden::load("networks")?;
        let config = |architecture, width, stem| EncoderConfig {
            architecture,
            width,
            stem,
            zero_init_residual: false,
        };
        let cifar = config(Architecture::Resnet18, 4, Stem::Cifar);
        check_network(&golden, "resnet18_cifar", &cifar, [2, 13, 11, 3], SHALLOW)?;
        let wide = config(Architecture::Resnet18, 16, Stem::Cifar);
        check_network(&golden, "resnet18_wide", &wide, [2, 17, 19, 3], SHALLOW)?;
        let imagenet = config(Architecture::Resnet50, 4, Stem::Imagenet);
        check_network(
            &golden,
            "resnet50_imagenet",
            &imagenet,
            [4, 35, 33, 3],
            DEEP,
        )?;
        check_head(&golden, "mlp", HeadKind::Mlp)?;
        check_head(&golden, "batch_norm_mlp", HeadKind::BatchNormMlp)?;
        golden.assert_all_compared();
        Ok(())
    })
}

/// Name and shape of every tensor of torchvision's `architecture`, in its order.
fn torchvision_names(architecture: &str) -> Vec<(String, Vec<usize>)> {
    let text = std::fs::read_to_string(format!("{FOLDER}/torchvision.txt"))
        .expect("the stored names are readable");
    let section = text
        .split('[')
        .find_map(|section| section.strip_prefix(&format!("{architecture}]\n")))
        .expect("the architecture is stored");
    section
        .lines()
        .map(|line| {
            let (name, shape) = line.split_once(' ').expect("name and shape");
            let shape = shape.split('x').map(|side| side.parse().expect("a size"));
            (name.to_string(), shape.collect())
        })
        .collect()
}

#[test]
fn names_shapes_and_order_are_torchvisions() -> Result<()> {
    for (name, architecture, scalars) in [
        ("resnet18", Architecture::Resnet18, 11_176_512),
        ("resnet34", Architecture::Resnet34, 21_284_672),
        ("resnet50", Architecture::Resnet50, 23_508_032),
        ("resnet101", Architecture::Resnet101, 42_500_160),
    ] {
        let mut builder = ParameterBuilder::new(0, &Device::Cpu);
        ResNet::new(&EncoderConfig::imagenet(architecture), &mut builder)?;
        let set = builder.finish();
        let ours: Vec<(String, Vec<usize>)> = set
            .to_named()?
            .into_iter()
            .map(|(name, tensor): (String, Tensor)| (name, tensor.dims().to_vec()))
            .collect();
        let (buffers, parameters): (Vec<_>, Vec<_>) = torchvision_names(name)
            .into_iter()
            .partition(|(name, _)| name.contains(".running_"));
        assert_eq!(ours, [parameters, buffers].concat(), "{name}");
        // torchvision's counts less those of its classifier.
        assert_eq!(set.scalar_count(), scalars, "{name}");
    }
    Ok(())
}
