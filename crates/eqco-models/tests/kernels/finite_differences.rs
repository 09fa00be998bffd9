//! Gradients against central differences of the forward pass.
//!
//! The forward pass is f32; its scalar product with a hashed vector is taken in f64. Steps are as long as curvature and
//! kinks allow, since the rounding of the forward pass is divided by them.

use std::collections::HashMap;
use std::slice::from_ref;

use candle_core::{Result, Tensor};
use eqco_models::ops::average_pool::global_average_pool;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::ops::conv2d::conv2d;
use eqco_models::ops::cross_entropy::cross_entropy;
use eqco_models::ops::linear::linear;
use eqco_models::ops::max_pool::max_pool;
use eqco_models::ops::normalize::l2_normalize;
use eqco_models::ops::relu::relu;
use eqco_models::params::ParameterSet;
use eqco_models::projection_head::{HeadKind, ProjectionHead, ProjectionHeadConfig};
use eqco_models::resnet::{Architecture, EncoderConfig, ResNet, Stem};
use eqco_models::tape::{Activation, Tape};

use crate::differentiate::{declare, differentiate, evaluate};
use crate::families::on_every_family;
use crate::golden::{dot, values};
use crate::hashed::{hashed, hashed_between, hashed_values};

/// How far to step, and how far the quotient may be from the gradient, relative to its typical size.
#[derive(Clone, Copy)]
struct Probe {
    step: f64,
    tolerance: f64,
}

/// Linear maps have no curvature: only rounding is left.
const LINEAR: Probe = Probe {
    step: 0.25,
    tolerance: 1e-5,
};
/// Curvature adds the square of the step.
const SMOOTH: Probe = Probe {
    step: 0.01,
    tolerance: 1e-3,
};
/// A ReLU or a maximum that changes sides within the step adds up to half its own gradient.
const KINKED: Probe = Probe {
    step: 2e-4,
    tolerance: 1e-2,
};

/// Single coordinates that are tried per tensor, beside two directions through all of them.
const COORDINATES: usize = 8;

/// Compares the gradients of all inputs and parameters with differences.
fn check(
    name: &str,
    set: &ParameterSet,
    inputs: &[Tensor],
    probe: Probe,
    forward: impl Fn(&mut Tape, &[Activation]) -> Result<Activation>,
) -> Result<()> {
    let output_name = format!("{name}.output_gradient");
    let pass = differentiate(set, inputs, |shape| hashed(&output_name, shape), &forward)?;
    let weights = hashed_values(&output_name, pass.output.elem_count(), -1.0, 1.0);
    let scalar = |inputs: &[Tensor]| Ok(dot(&weights, &values(&evaluate(inputs, &forward)?)?));

    for (index, gradient) in pass.inputs.iter().enumerate() {
        compare(
            &format!("{name}, input {index}"),
            gradient,
            probe,
            |direction| {
                let mut moved = inputs.to_vec();
                moved[index] = (&moved[index] + direction)?.contiguous()?;
                scalar(&moved)
            },
        )?;
    }
    let original: HashMap<String, Tensor> = set.to_named()?.into_iter().collect();
    for (parameter, gradient) in &pass.parameters {
        compare(
            &format!("{name}, {parameter}"),
            gradient,
            probe,
            |direction| {
                let mut moved = original.clone();
                moved.insert(parameter.clone(), (&original[parameter] + direction)?);
                set.load_named("", &moved)?;
                let value = scalar(inputs);
                set.load_named("", &original)?;
                value
            },
        )?;
    }
    Ok(())
}

/// `moved` gives the scalar after a step in a direction.
fn compare(
    name: &str,
    gradient: &Tensor,
    probe: Probe,
    moved: impl Fn(&Tensor) -> Result<f64>,
) -> Result<()> {
    let slopes = values(gradient)?;
    let typical = (slopes.iter().map(|v| v * v).sum::<f64>() / slopes.len() as f64).sqrt();
    assert!(typical > 0.0, "{name}: the gradient vanishes");
    for direction in directions(name, gradient.dims())? {
        let step = (&direction * probe.step)?;
        let quotient = (moved(&step)? - moved(&step.neg()?)?) / (2.0 * probe.step);
        let entries = direction.flatten_all()?.to_vec1::<f32>()?;
        let length = entries
            .iter()
            .map(|d| f64::from(*d).powi(2))
            .sum::<f64>()
            .sqrt();
        let error = (quotient - dot(&entries, &slopes)).abs() / (typical * length);
        println!(
            "{name}: relative error {error:.1e} of {:.0e}",
            probe.tolerance
        );
        assert!(
            error <= probe.tolerance,
            "{name}: difference quotient {quotient}, gradient {}, relative error {error:e}",
            dot(&entries, &slopes)
        );
    }
    Ok(())
}

fn directions(name: &str, shape: &[usize]) -> Result<Vec<Tensor>> {
    let count: usize = shape.iter().product();
    let mut directions = vec![
        hashed(&format!("{name}, direction 1"), shape)?,
        hashed(&format!("{name}, direction 2"), shape)?,
    ];
    for coordinate in (0..count).step_by(count.div_ceil(COORDINATES)) {
        let mut unit = vec![0f32; count];
        unit[coordinate] = 1.0;
        directions.push(Tensor::from_vec(unit, shape, &candle_core::Device::Cpu)?);
    }
    Ok(directions)
}

#[test]
fn convolutions() -> Result<()> {
    for (name, kernel, stride, padding) in [
        ("3x3", 3, 1, 1),
        ("3x3 stride 2", 3, 2, 1),
        ("1x1", 1, 1, 0),
        ("1x1 stride 2", 1, 2, 0),
        ("7x7 stride 2", 7, 2, 3),
    ] {
        let (weight, set) = declare(|b| b.conv_weight("weight", 5, 3, kernel))?;
        let images = hashed(name, &[2, 7, 6, 3])?;
        check(name, &set, &[images], LINEAR, |tape, x| {
            conv2d(tape, &x[0], &weight, stride, padding)
        })?;
    }
    Ok(())
}

#[test]
fn pools_and_linear_layers() -> Result<()> {
    on_every_family(|| {
        let (_, none) = declare(|_| Ok(()))?;
        let images = hashed("pools", &[2, 7, 6, 3])?;
        check(
            "average pool",
            &none,
            from_ref(&images),
            LINEAR,
            |tape, x| global_average_pool(tape, &x[0]),
        )?;
        check("max pool", &none, &[images], KINKED, |tape, x| {
            max_pool(tape, &x[0])
        })?;
        let rows = hashed("rows", &[6, 7])?;
        let ((weight, bias), set) =
            declare(|b| Ok((b.linear_weight("weight", 5, 7)?, b.bias("bias", 5, 7)?)))?;
        check("linear", &set, from_ref(&rows), LINEAR, |tape, x| {
            linear(tape, &x[0], &weight, Some(&bias))
        })?;
        check("relu", &none, from_ref(&rows), KINKED, |tape, x| {
            relu(tape, &x[0])
        })?;
        check("normalise", &none, &[rows], SMOOTH, |tape, x| {
            l2_normalize(tape, &x[0])
        })
    })
}

#[test]
fn cross_entropies() -> Result<()> {
    on_every_family(|| {
        let (_, none) = declare(|_| Ok(()))?;
        // More rows than one task handles, and an odd number of classes.
        let logits = (hashed("logits", &[67, 5])? * 3.0)?;
        let labels: Vec<u32> = (0..67).map(|row| row * row % 5).collect();
        // One value close to 1, of which each logit moves a 67th: rounding asks for a long step.
        let probe = Probe {
            step: 0.1,
            tolerance: 2e-3,
        };
        check("cross entropy", &none, &[logits], probe, |tape, x| {
            cross_entropy(tape, &x[0], &labels)
        })
    })
}

/// A layer whose scale and shift are not at their initial values.
fn batch_norm(channels: usize) -> Result<(BatchNorm, ParameterSet)> {
    let (layer, set) = declare(|b| BatchNorm::new(b, "bn", channels, 1.0))?;
    let mut tensors: HashMap<String, Tensor> = set.to_named()?.into_iter().collect();
    tensors.insert(
        "bn.weight".into(),
        hashed_between("scale", &[channels], 0.5, 1.5)?,
    );
    tensors.insert("bn.bias".into(), hashed("shift", &[channels])?);
    set.load_named("", &tensors)?;
    Ok((layer, set))
}

#[test]
fn batch_norms() -> Result<()> {
    on_every_family(|| {
        let shape = [4, 5, 3, 5];
        let (layer, set) = batch_norm(5)?;
        let (x, residual) = (hashed("normalised", &shape)?, hashed("residual", &shape)?);
        for (name, activate, probe) in [
            ("batch norm", Activate::Linear, SMOOTH),
            ("batch norm, relu", Activate::Relu, KINKED),
        ] {
            check(name, &set, from_ref(&x), probe, |tape, x| {
                layer.forward(tape, &x[0], None, activate)
            })?;
            let inputs = [x.clone(), residual.clone()];
            check(
                &format!("{name}, residual"),
                &set,
                &inputs,
                probe,
                |tape, x| layer.forward(tape, &x[0], Some(&x[1]), activate),
            )?;
        }
        Ok(())
    })
}

#[test]
fn a_residual_block_whose_input_is_used_twice() -> Result<()> {
    on_every_family(|| {
        let ((first, second, norms), set) = declare(|b| {
            let first = b.conv_weight("first", 4, 4, 3)?;
            let second = b.conv_weight("second", 4, 4, 3)?;
            let norms = [
                BatchNorm::new(b, "bn1", 4, 1.0)?,
                BatchNorm::new(b, "bn2", 4, 1.0)?,
            ];
            Ok((first, second, norms))
        })?;
        let images = hashed("block", &[3, 5, 6, 4])?;
        check("block", &set, &[images], KINKED, |tape, x| {
            let inner = conv2d(tape, &x[0], &first, 1, 1)?;
            let inner = norms[0].forward(tape, &inner, None, Activate::Relu)?;
            let inner = conv2d(tape, &inner, &second, 1, 1)?;
            norms[1].forward(tape, &inner, Some(&x[0]), Activate::Relu)
        })
    })
}

#[test]
fn projection_heads_with_normalisation() -> Result<()> {
    on_every_family(|| {
        for (name, kind) in [
            ("mlp", HeadKind::Mlp),
            ("batch norm mlp", HeadKind::BatchNormMlp),
        ] {
            let config = ProjectionHeadConfig {
                kind,
                hidden_dim: 0,
                embedding_dim: 5,
            };
            let (head, set) = declare(|b| ProjectionHead::new(&config, 8, b))?;
            let representation = hashed("representation", &[7, 8])?;
            check(name, &set, &[representation], KINKED, |tape, x| {
                let embedding = head.forward(tape, &x[0])?;
                l2_normalize(tape, &embedding)
            })?;
        }
        Ok(())
    })
}

/// Here through every parameter at once: kinks and curvature of seventeen layers leave no room for single coordinates.
#[test]
fn a_whole_network_along_one_direction() -> Result<()> {
    on_every_family(|| {
        let config = EncoderConfig {
            architecture: Architecture::Resnet18,
            width: 4,
            stem: Stem::Imagenet,
            zero_init_residual: false,
        };
        let (network, set) = declare(|b| ResNet::new(&config, b))?;
        let images = hashed("images", &[8, 37, 40, 3])?;
        let forward = |tape: &mut Tape, x: &[Activation]| network.forward(tape, &x[0]);
        let pass = differentiate(
            &set,
            from_ref(&images),
            |shape| hashed("network.output_gradient", shape),
            &forward,
        )?;
        let weights = hashed_values(
            "network.output_gradient",
            pass.output.elem_count(),
            -1.0,
            1.0,
        );
        let original: HashMap<String, Tensor> = set.to_named()?.into_iter().collect();
        let step = 1e-4;
        // Along the gradient itself, the slope is its squared length.
        let squared_length = pass
            .parameters
            .iter()
            .map(|(_, gradient)| Ok(values(gradient)?.iter().map(|v| v * v).sum::<f64>()))
            .sum::<Result<f64>>()?;
        let moved = |sign: f64| {
            let mut tensors = original.clone();
            for (name, gradient) in &pass.parameters {
                let direction = (gradient * (sign * step / squared_length.sqrt()))?;
                tensors.insert(name.clone(), (&original[name] + direction)?);
            }
            set.load_named("", &tensors)?;
            Ok::<_, candle_core::Error>(dot(
                &weights,
                &values(&evaluate(from_ref(&images), &forward)?)?,
            ))
        };
        let quotient = (moved(1.0)? - moved(-1.0)?) / (2.0 * step);
        let error = (quotient / squared_length.sqrt() - 1.0).abs();
        println!("whole network: relative error {error:.1e} of 2e-2");
        assert!(error < 2e-2, "{quotient} against {}", squared_length.sqrt());
        Ok(())
    })
}
