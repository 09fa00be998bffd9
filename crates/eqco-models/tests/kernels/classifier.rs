//! The classifier on a whole network.

use candle_core::{Device, Result, Tensor};
use eqco_models::backend::Backend;
use eqco_models::optim::{Optimizer, OptimizerConfig};
use eqco_models::tape::Gradients;
use eqco_models::{
    Architecture, Classifier, Encoder, EncoderConfig, HeadKind, Normalization,
    ProjectionHeadConfig, Stem,
};

use crate::cross_entropy::assert_near;
use crate::differentiate::in_exchange_shapes;
use crate::families::{family, on_every_family};
use crate::golden::values;

const CONFIG: EncoderConfig = EncoderConfig::cifar(Architecture::Resnet18, 2);

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
    let encoder = Encoder::new(&CONFIG, &head, Normalization::CIFAR10, seed, &Device::Cpu)?;
    Ok(encoder.with_backend(family()))
}

#[test]
fn a_new_classifier_knows_nothing_and_has_the_encoders_backbone() -> Result<()> {
    on_every_family(knows_nothing_and_has_the_backbone)
}

fn knows_nothing_and_has_the_backbone() -> Result<()> {
    let encoder = encoder(5)?;
    let (fresh, copied) = (
        Classifier::new(&CONFIG, Normalization::CIFAR10, 4, 5, &Device::Cpu)?
            .with_backend(&family()),
        Classifier::on_encoder(&encoder, 4)?,
    );
    let (pixels, labels) = images();
    let expected = encoder.to_checkpoint()?;
    assert_eq!(copied.backend().name(), family().name());
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
    on_every_family(forty_steps_learn)
}

fn forty_steps_learn() -> Result<()> {
    let classifier = Classifier::on_encoder(&encoder(1)?, 4)?;
    assert_eq!(classifier.class_count(), 4);
    let (pixels, labels) = images();
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), classifier.parameters())
        .map_err(candle_core::Error::from)?
        .with_backend(classifier.backend());
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

/// Relative to the largest value of a tensor. f32 has 6e-8; sums are taken in another order, some in another precision, and
/// batch norms over few values amplify what comes out.
const IN_F32: f64 = 5e-5;

/// What one step of SGD does: loss, all gradients, then all parameters and buffers, then the logits that follow.
fn step(classifier: &Classifier, pixels: &[u8], labels: &[u32]) -> Result<Vec<(String, Vec<f64>)>> {
    let mut gradients = Gradients::new(classifier.parameters())?;
    let loss = classifier.differentiate(pixels, STEP_SIZE, labels, &mut gradients)?;
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), classifier.parameters())
        .map_err(candle_core::Error::from)?
        .with_backend(classifier.backend());
    let mut found = vec![("loss".to_owned(), vec![loss])];
    for (name, gradient) in in_exchange_shapes(classifier.parameters(), &gradients)? {
        found.push((format!("gradient of {name}"), values(&gradient)?));
    }
    optimizer.step(classifier.parameters(), &gradients, 0.01)?;
    for (name, tensor) in classifier.to_checkpoint()? {
        found.push((name, values(&tensor)?));
    }
    let logits = classifier.classify(pixels, STEP_SIZE)?;
    found.push(("logits".to_owned(), values(&logits)?));
    Ok(found)
}

/// Odd, so that maps have sides that no stride divides.
const STEP_SIZE: usize = 33;

/// A ResNet-18 with its max pool that has trained for two steps: after none, its linear layer is zero and so is the gradient of
/// everything below.
fn trained(pixels: &[u8], labels: &[u32]) -> Result<Classifier> {
    let config = EncoderConfig {
        width: 8,
        stem: Stem::Imagenet,
        ..CONFIG
    };
    let classifier = Classifier::new(&config, Normalization::CIFAR10, 4, 3, &Device::Cpu)?;
    for _ in 0..2 {
        step(&classifier, pixels, labels)?;
    }
    Ok(classifier)
}

#[test]
fn a_supervised_step_of_every_family_is_that_of_the_portable_kernels() -> Result<()> {
    let pixel =
        |at: usize| (at * at % 251) as u8 / 2 + (at / (STEP_SIZE * STEP_SIZE * 3) % 4) as u8 * 30;
    let pixels: Vec<u8> = (0..16 * STEP_SIZE * STEP_SIZE * 3).map(pixel).collect();
    let labels: Vec<u32> = (0..16).map(|image| image % 4).collect();
    on_every_family(|| {
        let portable = trained(&pixels, &labels)?;
        assert!(matches!(portable.backend(), Backend::Portable));
        let other = trained(&pixels, &labels)?.with_backend(&family());
        let expected = step(&portable, &pixels, &labels)?;
        let found = step(&other, &pixels, &labels)?;
        assert_eq!(found.len(), expected.len());
        // Loss, 62 gradients, 62 parameters and 40 running statistics, logits.
        assert_eq!(found.len(), 1 + 62 + 102 + 1);
        for ((name, found), (expected_name, expected)) in found.iter().zip(&expected) {
            assert_eq!(name, expected_name);
            let largest = expected
                .iter()
                .fold(0f64, |most, value| most.max(value.abs()));
            assert!(largest > 0.0, "{name} is zero everywhere");
            assert_near(found, expected, IN_F32 * largest);
        }
        Ok(())
    })
}
