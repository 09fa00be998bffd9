//! Supervised training on images that a tiny network tells apart.

use std::sync::Arc;

use candle_core::Device;
use eqco_data::Image;

use super::*;
use crate::encoder_sha256;
use crate::images::tests::{MemoryImages, images};
use crate::representation::tests::encoder;

/// Planes of three levels of red, one a class, each image a little different in green.
fn planes(count: usize) -> Arc<MemoryImages> {
    let image = |index: usize| {
        let pixel = [30 + 90 * (index % 3) as u8, (index * 11 % 200) as u8, 128];
        Image::new(8, 8, pixel.repeat(64)).unwrap()
    };
    let all = (0..count).map(image).collect();
    Arc::new(MemoryImages::new(all, &["a", "b", "c"]))
}

fn plane_images() -> EvalImages {
    EvalImages::new(planes(50), planes(31), 8, 2).unwrap()
}

fn config() -> SupervisedConfig {
    SupervisedConfig {
        epochs: 20,
        least_steps: 0,
        batch_size: 16,
        learning_rate: 0.2,
        seed: 4,
        ..SupervisedConfig::default()
    }
}

fn train(config: &SupervisedConfig) -> Result<SupervisedResult, EvalError> {
    let classifier = Classifier::on_encoder(&encoder(1), 3)?;
    train_supervised(&classifier, "start", &plane_images(), config, &mut |_| {})
}

#[test]
fn three_levels_of_red_are_learnt_and_every_epoch_is_told() {
    let encoder = encoder(1);
    let before = encoder_sha256(&encoder).unwrap();
    let classifier = Classifier::on_encoder(&encoder, 3).unwrap();
    let mut told = Vec::new();
    let images = plane_images();
    let result = train_supervised(&classifier, "start", &images, &config(), &mut |standing| {
        told.push(standing)
    })
    .unwrap();
    assert!(result.accuracy.top1 > 95.0, "{:?}", result.epochs);
    // 50 images are three batches of 16.
    assert_eq!(
        (result.plan.steps, result.epochs.len(), told.len()),
        (60, 20, 20 * 4)
    );
    assert_eq!((told[3].epoch, told[3].step, told[3].steps), (1, 3, 3));
    assert_eq!(told[3].test_top1, result.epochs[0].test_top1);
    assert_eq!(told[2].train_loss, result.epochs[0].train_loss);
    // A zero layer begins with ln 3.
    assert!(
        (told[0].train_loss - 3f64.ln()).abs() < 1e-6,
        "{}",
        told[0].train_loss
    );
    assert!(result.epochs[19].train_loss < 0.5);
    let protocol = &result.protocol;
    assert_eq!((protocol.train.count, protocol.test.count), (50, 31));
    assert_eq!(protocol.train.origin.representation, "start");
    assert_eq!(
        encoder_sha256(&encoder).unwrap(),
        before,
        "the encoder is not touched"
    );
    let json = serde_json::to_value(&result).unwrap();
    assert_eq!(json["top1"], result.accuracy.top1);
    assert_eq!(json["plan"]["recipe"]["name"], "supervised");
    assert_eq!(
        serde_json::from_value::<SupervisedResult>(json).unwrap(),
        result
    );
}

#[test]
fn of_many_epochs_some_are_measured_and_the_last_always() {
    let many = SupervisedConfig {
        epochs: 65,
        batch_size: 50,
        ..config()
    };
    let result = train(&many).unwrap();
    let measured = result.epochs.iter().enumerate();
    let measured: Vec<usize> = measured
        .filter(|(_, epoch)| epoch.test_top1.is_some())
        .map(|(epoch, _)| epoch + 1)
        .collect();
    let expected: Vec<usize> = (1..=21).map(|number| 3 * number).chain([65]).collect();
    assert_eq!(measured, expected);
    assert_eq!(result.epochs[64].test_top1, Some(result.accuracy.top1));
}

#[test]
fn the_seed_decides_everything() {
    let short = SupervisedConfig {
        epochs: 2,
        ..config()
    };
    let first = train(&short).unwrap();
    assert_eq!(train(&short).unwrap(), first);
    let other = SupervisedConfig { seed: 5, ..short };
    assert_ne!(train(&other).unwrap().epochs, first.epochs);
}

#[test]
fn a_rate_that_is_far_too_high_is_an_error_with_its_step() {
    let error = train(&SupervisedConfig {
        learning_rate: 1e30,
        ..config()
    })
    .unwrap_err();
    let EvalError::TrainingDiverged {
        step,
        learning_rate,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert!(step > 0 && learning_rate > 1e28, "{step} {learning_rate}");
    assert_eq!(error.hint().as_deref(), Some("give a lower --lr"));
}

#[test]
fn another_number_of_classes_is_refused() {
    let classifier = Classifier::on_encoder(&encoder(1), 2).unwrap();
    let images = images(6, 3, 8);
    let error = train_supervised(&classifier, "start", &images, &config(), &mut |_| {});
    let message = error.unwrap_err().to_string();
    assert_eq!(
        message,
        "classes: expected 3, the number of classes of the images, got 2"
    );
    let device = Device::Cpu;
    let none = Classifier::new(
        encoder(1).config(),
        encoder(1).normalization(),
        0,
        1,
        &device,
    );
    assert!(none.is_err());
}
