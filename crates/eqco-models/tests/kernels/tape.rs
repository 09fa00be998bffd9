//! How gradients add up.

use std::slice::from_ref;

use candle_core::{Device, Result, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::ops::average_pool::global_average_pool;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::ops::conv2d::conv2d;
use eqco_models::ops::linear::linear;
use eqco_models::ops::max_pool::max_pool;
use eqco_models::ops::normalize::l2_normalize;
use eqco_models::ops::relu::relu;
use eqco_models::params::{Parameter, ParameterSet};
use eqco_models::projection_head::{HeadKind, ProjectionHead, ProjectionHeadConfig};
use eqco_models::resnet::{Architecture, EncoderConfig, ResNet};
use eqco_models::tape::{Activation, Gradients, Mode, Tape};

use crate::differentiate::{declare, differentiate, in_exchange_shapes};
use crate::families::on_every_family;
use crate::golden::{bits, largest_relative_error, values};
use crate::hashed::{hashed, hashed_between};

fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) -> Result<()> {
    let error = largest_relative_error(&values(found)?, &values(expected)?);
    assert!(error <= tolerance, "{what}: {error:e}");
    Ok(())
}

struct Weights {
    spatial: Parameter,
    pointwise: Parameter,
    dense: Parameter,
    norm: BatchNorm,
}

type Operation = fn(&mut Tape, &Activation, &Weights) -> Result<Activation>;

/// Every operation, and whether it works on images.
const OPERATIONS: [(&str, bool, Operation); 9] = [
    ("3x3", true, |t, x, w| conv2d(t, x, &w.spatial, 1, 1)),
    ("3x3 stride 2", true, |t, x, w| {
        conv2d(t, x, &w.spatial, 2, 1)
    }),
    ("1x1", true, |t, x, w| conv2d(t, x, &w.pointwise, 1, 0)),
    ("max pool", true, |t, x, _| max_pool(t, x)),
    ("average pool", true, |t, x, _| global_average_pool(t, x)),
    ("batch norm", true, |t, x, w| {
        w.norm.forward(t, x, Some(x), Activate::Relu)
    }),
    ("linear", false, |t, x, w| linear(t, x, &w.dense, None)),
    ("relu", false, |t, x, _| relu(t, x)),
    ("normalise", false, |t, x, _| l2_normalize(t, x)),
];

/// One input for both branches gets the sum of what two equal inputs get, whichever branch runs back first.
#[test]
fn an_input_used_twice_gets_the_sum() -> Result<()> {
    on_every_family(|| {
        let ((weights, sum), set) = declare(|b| {
            let weights = Weights {
                spatial: b.conv_weight("spatial", 4, 4, 3)?,
                pointwise: b.conv_weight("pointwise", 4, 4, 1)?,
                dense: b.linear_weight("dense", 4, 4)?,
                norm: BatchNorm::new(b, "norm", 4, 1.0)?,
            };
            Ok((weights, BatchNorm::new(b, "sum", 4, 1.0)?))
        })?;
        for (name, on_images, operation) in OPERATIONS {
            let shape: &[usize] = if on_images { &[3, 7, 6, 4] } else { &[9, 4] };
            let x = hashed("shared", shape)?;
            let pool = BufferPool::new(&Device::Cpu);
            let pass = |inputs: &[Tensor]| {
                let mut tape = crate::families::tape(Mode::Training, &pool);
                let inputs = inputs
                    .iter()
                    .map(|x| tape.input(x))
                    .collect::<Result<Vec<_>>>()?;
                let left = operation(&mut tape, &inputs[0], &weights)?;
                let right = operation(&mut tape, &inputs[inputs.len() - 1], &weights)?;
                // Normalises one branch and adds the other: their gradients differ.
                let output = sum.forward(&mut tape, &left, Some(&right), Activate::Linear)?;
                let gradient = hashed("sum gradient", output.dims())?;
                let wanted: Vec<_> = inputs.iter().collect();
                tape.backward(&output, &gradient, &mut Gradients::new(&set)?, &wanted)
            };
            let shared = pass(from_ref(&x))?.remove(0).expect("takes part");
            let apart: Vec<_> = pass(&[x.clone(), x])?.into_iter().flatten().collect();
            assert!(largest_relative_error(&values(&apart[0])?, &values(&apart[1])?) > 0.1);
            assert_close(&shared, &(&apart[0] + &apart[1])?, 1e-6, name)?;
        }
        Ok(())
    })
}

fn tiny_network() -> Result<(ResNet, ParameterSet)> {
    let config = EncoderConfig::cifar(Architecture::Resnet18, 4);
    declare(|b| ResNet::new(&config, b))
}

/// Adds the gradients of one step on `images` to `gradients` and returns the representation.
fn step(
    network: &ResNet,
    images: &Tensor,
    output_gradient: &Tensor,
    group: Option<usize>,
    gradients: &mut Gradients,
) -> Result<Tensor> {
    let pool = BufferPool::new(&Device::Cpu);
    let mut tape = crate::families::tape(Mode::Training, &pool).with_batch_norm_group(group);
    let output = network.forward(&mut tape, &Activation::constant(images)?)?;
    tape.backward(&output, output_gradient, gradients, &[])?;
    output.to_tensor()
}

/// Two steps into the same gradients give twice those of one, and after a reset a step gives the same bits again.
fn check_accumulation(
    set: &ParameterSet,
    step: impl Fn(&mut Gradients) -> Result<()>,
) -> Result<()> {
    let mut gradients = Gradients::new(set)?;
    let unreached = |g: &Gradients| set.parameters().iter().all(|p| g.get(p).is_none());
    assert!(unreached(&gradients));
    step(&mut gradients)?;
    let once = in_exchange_shapes(set, &gradients)?;
    step(&mut gradients)?;
    let twice = in_exchange_shapes(set, &gradients)?;
    for ((name, once), (_, twice)) in once.iter().zip(&twice) {
        assert_close(twice, &(once * 2.0)?, 1e-6, name)?;
    }
    gradients.reset();
    assert!(unreached(&gradients));
    step(&mut gradients)?;
    for ((name, once), (_, again)) in once.iter().zip(in_exchange_shapes(set, &gradients)?) {
        assert_eq!(bits(once)?, bits(&again)?, "{name}");
    }
    Ok(())
}

#[test]
fn a_second_backward_pass_adds_and_a_reset_forgets() -> Result<()> {
    on_every_family(|| {
        let (network, set) = tiny_network()?;
        let images = hashed("images", &[4, 11, 9, 3])?;
        let gradient = hashed("gradient", &[4, 32])?;
        check_accumulation(&set, |gradients| {
            step(&network, &images, &gradient, None, gradients).map(|_| ())
        })?;
        for kind in [HeadKind::Mlp, HeadKind::BatchNormMlp] {
            let config = ProjectionHeadConfig {
                kind,
                hidden_dim: 0,
                embedding_dim: 5,
            };
            let (head, set) = declare(|b| ProjectionHead::new(&config, 9, b))?;
            let representation = Activation::constant(&images.reshape((132, 9))?)?;
            let gradient = hashed("embedding gradient", &[132, 5])?;
            check_accumulation(&set, |gradients| {
                let mut tape =
                    crate::families::tape(Mode::Training, &BufferPool::new(&Device::Cpu));
                let embedding = head.forward(&mut tape, &representation)?;
                tape.backward(&embedding, &gradient, gradients, &[])
                    .map(|_| ())
            })?;
        }
        Ok(())
    })
}

#[test]
fn batch_norm_groups_equal_separate_batches() -> Result<()> {
    on_every_family(|| {
        let ((network, set), (other, other_set)) = (tiny_network()?, tiny_network()?);
        let images = hashed("images", &[6, 11, 9, 3])?;
        let gradient = hashed("gradient", &[6, 32])?;
        let mut grouped = Gradients::new(&set)?;
        let together = step(&network, &images, &gradient, Some(2), &mut grouped)?;

        let mut separate = Gradients::new(&other_set)?;
        for first in [0, 2, 4] {
            let (images, gradient) = (images.narrow(0, first, 2)?, gradient.narrow(0, first, 2)?);
            let alone = step(&other, &images, &gradient, None, &mut separate)?;
            assert_close(
                &together.narrow(0, first, 2)?,
                &alone,
                1e-5,
                "representation",
            )?;
        }
        let grouped = in_exchange_shapes(&set, &grouped)?;
        for ((name, grouped), (_, separate)) in grouped
            .iter()
            .zip(in_exchange_shapes(&other_set, &separate)?)
        {
            assert_close(grouped, &separate, 1e-4, name)?;
        }
        for (grouped, separate) in set.buffers().iter().zip(other_set.buffers()) {
            assert_close(grouped.value(), separate.value(), 1e-5, grouped.name())?;
        }
        // The groups matter: without them the representation is another one.
        let whole = step(
            &network,
            &images,
            &gradient,
            None,
            &mut Gradients::new(&set)?,
        )?;
        assert!(largest_relative_error(&values(&whole)?, &values(&together)?) > 1e-2);
        Ok(())
    })
}

/// One value far above f32's range of squares, and a NaN, must show in the output: a diverged run must not go on quietly.
#[test]
fn a_nan_passes_through_every_operation() -> Result<()> {
    on_every_family(|| {
        let ((weights, dense), _) = declare(|b| {
            let weights = (
                b.conv_weight("spatial", 4, 4, 3)?,
                BatchNorm::new(b, "norm", 4, 1.0)?,
            );
            Ok((weights, b.linear_weight("dense", 4, 4)?))
        })?;
        let mut image = hashed("image", &[2, 4, 4, 4])?
            .flatten_all()?
            .to_vec1::<f32>()?;
        image[21] = f32::NAN;
        let image = Tensor::from_vec(image, (2, 4, 4, 4), &Device::Cpu)?;
        let pool = BufferPool::new(&Device::Cpu);
        let constant = Activation::constant(&image)?;
        let rows = Activation::constant(&image.reshape((32, 4))?)?;
        let (spatial, norm) = &weights;
        for mode in [Mode::Training, Mode::Evaluation] {
            let tape = &mut crate::families::tape(mode, &pool);
            for (name, output) in [
                ("convolution", conv2d(tape, &constant, spatial, 1, 1)?),
                (
                    "batch norm",
                    norm.forward(tape, &constant, None, Activate::Linear)?,
                ),
                (
                    "batch norm, relu",
                    norm.forward(tape, &constant, None, Activate::Relu)?,
                ),
                (
                    "residual",
                    norm.forward(tape, &constant, Some(&constant), Activate::Relu)?,
                ),
                ("max pool", max_pool(tape, &constant)?),
                ("average pool", global_average_pool(tape, &constant)?),
                ("linear", linear(tape, &rows, &dense, None)?),
                ("relu", relu(tape, &rows)?),
                ("normalise", l2_normalize(tape, &rows)?),
            ] {
                let nan = values(&output.to_tensor()?)?.iter().any(|v| v.is_nan());
                assert!(nan, "{name} in {mode:?} hides a NaN");
            }
        }
        Ok(())
    })
}

/// Below PyTorch's smallest norm a row is divided by that constant, and so is its gradient.
#[test]
fn normalising_a_vanishing_row_divides_by_the_smallest_norm() -> Result<()> {
    on_every_family(|| {
        let (_, set) = declare(|_| Ok(()))?;
        let tiny = hashed_between("tiny", &[1, 4], 1e-14, 1e-13)?;
        let rows = Tensor::cat(&[&tiny.zeros_like()?, &tiny], 0)?;
        let gradient = hashed("gradient", &[2, 4])?;
        let pass = differentiate(
            &set,
            from_ref(&rows),
            |_| Ok(gradient.clone()),
            &|tape, x| l2_normalize(tape, &x[0]),
        )?;
        assert_close(&pass.output, &(rows * 1e12)?, 1e-6, "output")?;
        assert_close(&pass.inputs[0], &(gradient * 1e12)?, 1e-6, "gradient")
    })
}
