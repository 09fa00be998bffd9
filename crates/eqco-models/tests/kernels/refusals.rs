//! Input that does not fit is an error that says what was expected, never a panic.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::ops::average_pool::global_average_pool;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::ops::conv2d::conv2d;
use eqco_models::ops::cross_entropy::cross_entropy;
use eqco_models::ops::linear::linear;
use eqco_models::ops::max_pool::max_pool;
use eqco_models::ops::normalize::l2_normalize;
use eqco_models::params::ParameterBuilder;
use eqco_models::precision::Precision;
use eqco_models::projection_head::{HeadKind, ProjectionHead, ProjectionHeadConfig};
use eqco_models::resnet::{Architecture, EncoderConfig, ResNet, Stem};
use eqco_models::tape::{Activation, Gradients, Mode, Tape};

use crate::differentiate::declare;
use crate::hashed::hashed;

fn assert_refused<T>(result: Result<T>, parts: &[&str]) {
    let message = result.err().expect("must be refused").to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

fn tape() -> Tape {
    Tape::new(Mode::Training, &BufferPool::new(&Device::Cpu))
}

fn constant(shape: &[usize]) -> Result<Activation> {
    Activation::constant(&hashed("constant", shape)?)
}

#[test]
fn convolutions_name_their_weight() -> Result<()> {
    let (weight, _) = declare(|b| b.scope("layer2.0.conv1", |b| b.conv_weight("weight", 6, 4, 7)))?;
    let name = "layer2.0.conv1.weight";
    let refused = |shape: &[usize], stride, padding, parts: &[&str]| {
        assert_refused(
            conv2d(&mut tape(), &constant(shape)?, &weight, stride, padding),
            parts,
        );
        Ok::<_, candle_core::Error>(())
    };
    refused(&[2, 8, 8, 3], 1, 3, &[name, "4 input channels", "3"])?;
    refused(&[2, 8, 4], 1, 3, &[name, "[N,H,W,C]", "[2, 8, 4]"])?;
    refused(&[2, 5, 1, 4], 2, 1, &[name, "7x7", "5x1"])?;
    refused(&[2, 8, 8, 4], 0, 3, &[name, "stride 0"])
}

#[test]
fn linear_layers_name_their_weight() -> Result<()> {
    let ((weight, bias), _) = declare(|b| {
        b.scope("head.0", |b| {
            Ok((b.linear_weight("weight", 6, 4)?, b.bias("bias", 5, 4)?))
        })
    })?;
    let run = |shape: &[usize], bias| linear(&mut tape(), &constant(shape)?, &weight, bias);
    assert_refused(run(&[2, 5], None), &["head.0.weight", "4 inputs", "5"]);
    assert_refused(
        run(&[2, 2, 4], None),
        &["head.0.weight", "[N,I]", "[2, 2, 4]"],
    );
    assert_refused(run(&[2, 4], Some(&bias)), &["head.0.bias", "[6]", "[5]"]);
    Ok(())
}

#[test]
fn cross_entropies_name_the_label_and_its_row() -> Result<()> {
    let run =
        |shape: &[usize], labels: &[u32]| cross_entropy(&mut tape(), &constant(shape)?, labels);
    assert_refused(run(&[2, 3], &[0, 3]), &["below 3", "found 3 in row 1"]);
    assert_refused(run(&[2, 3], &[0]), &["2 rows", "found 1 labels"]);
    assert_refused(run(&[0, 3], &[]), &["at least one row"]);
    assert_refused(run(&[2, 3, 1], &[0, 0]), &["[N,C]", "[2, 3, 1]"]);
    Ok(())
}

#[test]
fn batch_norms_name_their_weight() -> Result<()> {
    let (layer, _) = declare(|b| BatchNorm::new(b, "bn1", 4, 1.0))?;
    let run = |tape: &mut Tape, input: &[usize], residual: Option<&[usize]>| {
        let residual = residual.map(constant).transpose()?;
        layer.forward(tape, &constant(input)?, residual.as_ref(), Activate::Relu)
    };
    assert_refused(
        run(&mut tape(), &[2, 3, 3, 5], None),
        &["bn1.weight", "4 channels", "[2, 3, 3, 5]"],
    );
    assert_refused(
        run(&mut tape(), &[2, 3, 3, 4], Some(&[2, 3, 2, 4])),
        &["bn1.weight", "[2, 3, 2, 4]", "[2, 3, 3, 4]"],
    );
    assert_refused(
        run(&mut tape(), &[1, 1, 1, 4], None),
        &["bn1.weight", "at least 2 values", "found 1"],
    );
    // A group of one image with one pixel is as little as a batch of one.
    let mut single = tape().with_batch_norm_group(Some(1));
    assert_refused(
        run(&mut single, &[2, 4], None),
        &["at least 2 values", "found 1"],
    );
    for samples in [0, 4] {
        let mut groups = tape().with_batch_norm_group(Some(samples));
        let expected = format!("groups of {samples} images");
        assert_refused(
            run(&mut groups, &[6, 3, 3, 4], None),
            &[&expected, "batch of 6"],
        );
    }
    // No images at all, with groups and without.
    assert_refused(
        run(&mut tape(), &[0, 3, 3, 4], None),
        &["at least 2 values", "found 0"],
    );
    let mut groups = tape().with_batch_norm_group(Some(2));
    assert_refused(
        run(&mut groups, &[0, 3, 3, 4], None),
        &["at least 2 values", "found 0"],
    );
    Ok(())
}

#[test]
fn operations_without_parameters_say_what_they_expect() -> Result<()> {
    let rows = constant(&[2, 6])?;
    assert_refused(
        max_pool(&mut tape(), &rows),
        &["max_pool", "[N,H,W,C]", "[2, 6]"],
    );
    assert_refused(
        global_average_pool(&mut tape(), &rows),
        &["global_average_pool", "[2, 6]"],
    );
    let images = constant(&[2, 3, 3, 6])?;
    assert_refused(
        l2_normalize(&mut tape(), &images),
        &["l2_normalize", "[N,D]", "[2, 3, 3, 6]"],
    );
    Ok(())
}

#[test]
fn only_contiguous_tensors_of_known_format_with_pixels_and_channels_enter_a_pass() -> Result<()> {
    let images = hashed("images", &[2, 3, 4, 5])?;
    let refused = |tensor: &Tensor, parts: &[&str]| {
        assert_refused(Activation::constant(tensor), parts);
        assert_refused(tape().input(tensor), parts);
    };
    refused(
        &images.permute((0, 3, 1, 2))?,
        &["contiguous f32", "strides"],
    );
    refused(&images.narrow(2, 1, 2)?, &["contiguous f32", "strides"]);
    refused(&images.to_dtype(DType::F64)?, &["contiguous f32", "F64"]);
    for shape in [[2, 0, 4, 5], [2, 3, 4, 0]] {
        refused(
            &Tensor::zeros(&shape, DType::F32, &Device::Cpu)?,
            &["empty", "0"],
        );
    }
    // A batch cut out of a larger one is contiguous.
    assert_eq!(
        Activation::constant(&images.narrow(0, 1, 1)?)?.dims(),
        [1, 3, 4, 5]
    );
    Ok(())
}

#[test]
fn number_formats_are_not_mixed_and_not_replaced_silently() -> Result<()> {
    let images = hashed("images", &[2, 8, 8, 3])?;
    let narrow = Activation::constant(&images.to_dtype(DType::BF16)?)?;
    let wide = Activation::constant(&images)?;
    let (norm, set) = declare(|b| BatchNorm::new(b, "bn1", 3, 1.0))?;
    assert_refused(
        norm.forward(&mut tape(), &narrow, Some(&wide), Activate::Relu),
        &["bn1.weight", "residual", "F32", "BF16"],
    );

    let mut pass = tape();
    let input = pass.input(&images.to_dtype(DType::BF16)?)?;
    let output = norm.forward(&mut pass, &input, None, Activate::Relu)?;
    assert_refused(
        pass.backward(&output, &images, &mut Gradients::new(&set)?, &[]),
        &["gradient", "BF16", "F32"],
    );

    let config = EncoderConfig::cifar(Architecture::Resnet18, 2);
    let (network, _) = declare(|b| ResNet::new(&config, b))?;
    assert_refused(
        network.forward(&mut tape(), &narrow),
        &["images", "expected F32", "found BF16"],
    );
    let mut narrow_pass = tape().with_precision(Precision::Bf16);
    assert_refused(
        network.forward(&mut narrow_pass, &wide),
        &["images", "expected BF16", "found F32"],
    );
    Ok(())
}

#[test]
fn backward_refuses_what_the_pass_has_not_recorded() -> Result<()> {
    let (weight, set) = declare(|b| b.conv_weight("weight", 6, 4, 3))?;
    let images = hashed("images", &[2, 5, 5, 4])?;
    let mut gradients = Gradients::new(&set)?;
    let gradient = hashed("gradient", &[2, 5, 5, 6])?;

    let mut first = tape();
    let input = first.input(&images)?;
    let output = conv2d(&mut first, &input, &weight, 1, 1)?;
    let transposed = gradient.permute((0, 3, 1, 2))?.contiguous()?;
    assert_refused(
        first.backward(&output, &transposed, &mut gradients, &[]),
        &["gradient", "[2, 5, 5, 6]", "[2, 6, 5, 5]"],
    );
    // The refusal has used nothing up.
    assert!(gradients.get(&weight).is_none());
    assert_eq!(
        first
            .backward(&output, &gradient, &mut gradients, &[&input])?
            .len(),
        1
    );
    // The tape is empty now: a second gradient would silently be none at all.
    assert_refused(
        first.backward(&output, &gradient, &mut gradients, &[&input]),
        &["recorded"],
    );

    let mut second = tape();
    second.input(&images)?;
    let other = conv2d(&mut second, &Activation::constant(&images)?, &weight, 1, 1)?;
    assert_refused(
        tape().backward(&other, &gradient, &mut gradients, &[]),
        &["recorded"],
    );
    // A tracked input of one pass inside another.
    let mixed = conv2d(&mut second, &input, &weight, 1, 1)?;
    assert_refused(
        second.backward(&mixed, &gradient, &mut gradients, &[]),
        &["another pass"],
    );
    // Nothing in the second pass depends on the first one's input.
    let reached = second.backward(&other, &gradient, &mut gradients, &[&input])?;
    assert!(reached[0].is_none());
    Ok(())
}

#[test]
fn models_without_dimensions_are_refused() {
    let mut builder = ParameterBuilder::new(0, &Device::Cpu);
    let encoder = EncoderConfig::cifar(Architecture::Resnet18, 0);
    assert_refused(
        ResNet::new(&encoder, &mut builder),
        &["width", "at least 1", "0"],
    );
    let head = |embedding_dim| ProjectionHeadConfig {
        kind: HeadKind::Mlp,
        hidden_dim: 0,
        embedding_dim,
    };
    assert_refused(
        ProjectionHead::new(&head(0), 8, &mut builder),
        &["embedding_dim", "at least 1"],
    );
    assert_refused(
        ProjectionHead::new(&head(4), 0, &mut builder),
        &["0.weight", "at least 1", "[0, 0]"],
    );
    assert_refused(
        BatchNorm::new(&mut builder, "bn", 0, 1.0),
        &["bn.weight", "at least 1", "[0]"],
    );
    assert!(builder.finish().parameters().is_empty());
}

#[test]
fn networks_refuse_images_that_do_not_fit() -> Result<()> {
    let config = EncoderConfig {
        architecture: Architecture::Resnet18,
        width: 2,
        stem: Stem::Imagenet,
        zero_init_residual: false,
    };
    let (network, _) = declare(|b| b.scope("backbone", |b| ResNet::new(&config, b)))?;
    let run = |shape: &[usize]| network.forward(&mut tape(), &constant(shape)?);
    assert_refused(
        run(&[2, 3, 32, 32]),
        &["backbone.conv1.weight", "3 input channels", "32"],
    );
    assert_refused(run(&[2, 32, 3]), &["backbone.conv1.weight", "[2, 32, 3]"]);
    // One image of 32 pixels ends in one pixel a channel: no batch statistics.
    assert_refused(
        run(&[1, 32, 32, 3]),
        &["backbone.layer4.0.downsample.1.weight", "at least 2 values"],
    );
    Ok(())
}

#[test]
fn loading_reports_shapes_as_the_file_has_them() -> Result<()> {
    let (_, set) = declare(|b| b.conv_weight("conv1.weight", 6, 3, 7))?;
    let load = |shape: &[usize]| {
        let tensor = hashed("loaded", shape)?;
        set.load_named("", &HashMap::from([("conv1.weight".to_string(), tensor)]))
    };
    assert_refused(
        load(&[6, 4, 7, 7]),
        &["conv1.weight", "[6, 3, 7, 7]", "[6, 4, 7, 7]"],
    );
    assert_refused(
        load(&[6, 147]),
        &["conv1.weight", "[6, 3, 7, 7]", "[6, 147]"],
    );
    load(&[6, 3, 7, 7])
}
