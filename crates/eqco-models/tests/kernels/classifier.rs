//! Cross-entropy in closed form, and the classifier on a whole network.

use candle_core::{Device, Result, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::ops::cross_entropy::cross_entropy;
use eqco_models::optim::{Optimizer, OptimizerConfig};
use eqco_models::tape::{Gradients, Mode};
use eqco_models::{
    Architecture, Classifier, Encoder, EncoderConfig, HeadKind, Normalization,
    ProjectionHeadConfig, Stem,
};

use crate::differentiate::{declare, differentiate};
use crate::golden::values;

const CONFIG: EncoderConfig = EncoderConfig {
    architecture: Architecture::Resnet18,
    width: 2,
    stem: Stem::Cifar,
    zero_init_residual: false,
};

fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found} {expected}");
    }
}

fn tensor(values: &[f32], shape: (usize, usize)) -> Result<Tensor> {
    Tensor::from_vec(values.to_vec(), shape, &Device::Cpu)
}

#[test]
fn cross_entropy_by_hand() -> Result<()> {
    let (_, none) = declare(|_| Ok(()))?;
    // exp is 1, 2, 5 and 1, 1, 2: softmax 1/8, 2/8, 5/8 and 1/4, 1/4, 2/4.
    let (two, five) = (2f32.ln(), 5f32.ln());
    let logits = tensor(&[0.0, two, five, 0.0, 0.0, two], (2, 3))?;
    let double = |shape: &[usize]| Tensor::full(2f32, shape, &Device::Cpu);
    let pass = differentiate(&none, &[logits], double, &|tape, x| {
        cross_entropy(tape, &x[0], &[1, 2])
    })?;
    let loss = (4f64.ln() + 2f64.ln()) / 2.0;
    assert_near(&values(&pass.output)?, &[loss], 1e-6);
    let gradient = [0.125, -0.75, 0.625, 0.25, 0.25, -0.5];
    assert_near(&values(&pass.inputs[0])?, &gradient, 1e-6);
    Ok(())
}

#[test]
fn cross_entropy_of_huge_logits_is_finite() -> Result<()> {
    let (_, none) = declare(|_| Ok(()))?;
    let logits = tensor(&[3e38, -3e38, 1e30, 1e30], (2, 2))?;
    let ones = |shape: &[usize]| Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu);
    let pass = differentiate(&none, &[logits], ones, &|tape, x| {
        cross_entropy(tape, &x[0], &[0, 1])
    })?;
    // The first row is certain and right, the second undecided.
    assert_near(&values(&pass.output)?, &[2f64.ln() / 2.0], 1e-6);
    assert_near(&values(&pass.inputs[0])?, &[0.0, 0.0, 0.25, -0.25], 1e-7);
    Ok(())
}

/// Sixteen images of noise around four grey levels, one a class.
fn images() -> (Vec<u8>, Vec<u32>) {
    let labels: Vec<u32> = (0..16).map(|image| image % 4).collect();
    let pixel = |image: usize, at: usize| (labels[image] as usize * 60 + at * 7 % 40) as u8;
    let pixels = (0..16).flat_map(|image| (0..8 * 8 * 3).map(move |at| (image, at)));
    let pixels = pixels.map(|(image, at)| pixel(image, at)).collect();
    (pixels, labels)
}

fn encoder(seed: u64) -> Result<Encoder> {
    let head = ProjectionHeadConfig {
        kind: HeadKind::Mlp,
        hidden_dim: 0,
        embedding_dim: 4,
    };
    Encoder::new(&CONFIG, &head, Normalization::CIFAR10, seed, &Device::Cpu)
}

#[test]
fn a_new_classifier_knows_nothing_and_has_the_encoders_backbone() -> Result<()> {
    let encoder = encoder(5)?;
    let (fresh, copied) = (
        Classifier::new(&CONFIG, Normalization::CIFAR10, 4, 5, &Device::Cpu)?,
        Classifier::on_encoder(&encoder, 4)?,
    );
    let (pixels, labels) = images();
    let expected = encoder.to_checkpoint()?;
    for classifier in [&fresh, &copied] {
        let mut gradients = Gradients::new(classifier.parameters())?;
        let loss = classifier.differentiate(&pixels, 8, &labels, &mut gradients)?;
        assert!((loss - 4f64.ln()).abs() < 1e-6, "{loss}");
        let found = classifier.to_checkpoint()?;
        let of_weights = |(name, _): &&(String, Tensor)| {
            name.starts_with("encoder.backbone.") && !name.contains("running")
        };
        let weights: Vec<_> = found.iter().filter(of_weights).collect();
        assert_eq!(weights.len(), 60);
        for ((name, found), (expected_name, expected)) in
            weights.into_iter().zip(expected.iter().filter(of_weights))
        {
            assert_eq!(name, expected_name);
            assert_eq!(values(found)?, values(expected)?, "{name}");
        }
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"classifier.weight") && names.contains(&"classifier.bias"));
    }
    // The encoder has its own memory.
    let before = values(&encoder.represent(&pixels, 8)?)?;
    let mut gradients = Gradients::new(copied.parameters())?;
    copied.differentiate(&pixels, 8, &labels, &mut gradients)?;
    assert_eq!(values(&encoder.represent(&pixels, 8)?)?, before);
    Ok(())
}

#[test]
fn forty_steps_learn_four_grey_levels_and_classifying_changes_nothing() -> Result<()> {
    let classifier = Classifier::on_encoder(&encoder(1)?, 4)?;
    assert_eq!(classifier.class_count(), 4);
    let (pixels, labels) = images();
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), classifier.parameters())
        .map_err(candle_core::Error::from)?;
    let mut gradients = Gradients::new(classifier.parameters())?;
    let mut losses = Vec::new();
    for _ in 0..40 {
        gradients.reset();
        losses.push(classifier.differentiate(&pixels, 8, &labels, &mut gradients)?);
        optimizer.step(classifier.parameters(), &gradients, 0.01)?;
    }
    assert!(losses[39] < 0.5 && losses[0] > 1.3, "{losses:?}");
    let before = classifier.to_checkpoint()?;
    let logits = classifier.classify(&pixels, 8)?;
    assert_eq!(logits.dims(), [16, 4]);
    for ((name, before), (_, after)) in before.iter().zip(classifier.to_checkpoint()?) {
        assert_eq!(values(before)?, values(&after)?, "{name}");
    }
    Ok(())
}

#[test]
fn a_pass_that_does_not_record_has_a_loss_and_no_backward_pass() -> Result<()> {
    let mut tape = crate::families::tape(Mode::Evaluation, &BufferPool::new(&Device::Cpu));
    let logits = eqco_models::tape::Activation::constant(&tensor(&[0.0, 0.0], (1, 2))?)?;
    let loss = cross_entropy(&mut tape, &logits, &[0])?;
    assert_near(&values(&loss.to_tensor()?)?, &[2f64.ln()], 1e-6);
    Ok(())
}
