//! Evaluation with CUDA's kernels, emulated, against the portable ones: representations and embeddings, the loss at other numbers
//! of negatives, and fine-tuning.

use std::sync::Arc;

use anyhow::Result;
use candle_core::Device;
use eqco_core::{Alpha, LossConfig};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{Split, limited, open};
use eqco_eval::{
    AtCount, ContrastConfig, EncoderOutput, EvalImages, KnnConfig, SupervisedConfig,
    SupervisedResult, View, contrast, encoder_sha256, image_rows, knn, represent, train_supervised,
};
use eqco_models::backend::{Backend, BackendName};
use eqco_models::cuda::Cuda;
use eqco_models::tape::Mode;
use eqco_models::{
    Architecture, Classifier, Encoder, EncoderConfig, HeadKind, Normalization, ProjectionHeadConfig,
};

/// Odd, so that maps have sides that no stride divides.
const SIDE: usize = 19;

/// An encoder of the portable kernels and the same one of CUDA's in the emulator; `None`, and a line that says so, in a build
/// without it.
fn encoders() -> Result<Option<[Encoder; 2]>> {
    let cuda = match Cuda::emulated() {
        Ok(cuda) => Backend::Cuda(Arc::new(cuda)),
        Err(error) => {
            eprintln!("NOT RUN: {error}");
            return Ok(None);
        }
    };
    let config = EncoderConfig::cifar(Architecture::Resnet18, 4);
    let head = ProjectionHeadConfig {
        kind: HeadKind::BatchNormMlp,
        hidden_dim: 0,
        embedding_dim: 16,
    };
    let normalization = Normalization::FASHION_MNIST;
    let portable = Encoder::new(&config, &head, normalization, 1, &Device::Cpu)?;
    // Running statistics of an initialisation are 0 and 1, with which half of the arithmetic drops out.
    let noise: Vec<u8> = (0..16 * SIDE * SIDE * 3)
        .map(|at| (at * at % 251) as u8)
        .collect();
    let noise = portable.upload(&noise, SIDE)?;
    for _ in 0..3 {
        portable.embed(&mut portable.tape(Mode::Training), &noise)?;
    }
    let emulated = portable.duplicate()?.with_backend(cuda);
    let names = [&portable, &emulated].map(|encoder| encoder.backend().name());
    assert_eq!(names, [BackendName::Portable, BackendName::Cuda]);
    Ok(Some([portable, emulated]))
}

fn images(train: usize, test: usize) -> Result<EvalImages> {
    let part = |split, count| Ok::<_, anyhow::Error>(limited(open("embedded", split)?, count));
    let (train, test) = (part(Split::Train, train)?, part(Split::Test, test)?);
    Ok(EvalImages::new(train, test, SIDE, 1)?)
}

/// Relative to the largest value.
fn assert_near(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    assert!(largest > 0.0, "{what}");
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * largest,
            "{what} {at}: {a}, expected {b} of at most {largest}"
        );
    }
}

#[test]
fn representations_are_those_of_the_portable_kernels() -> Result<()> {
    let Some([portable, emulated]) = encoders()? else {
        return Ok(());
    };
    let images = images(60, 30)?;
    let expected = represent(&portable, "encoder", &images, &mut |_| {})?;
    let found = represent(&emulated, "encoder", &images, &mut |_| {})?;
    assert_eq!(found.encoder_sha256, expected.encoder_sha256);
    for (a, b) in [
        (found.features.train(), expected.features.train()),
        (found.features.test(), expected.features.test()),
    ] {
        assert_eq!((a.labels(), a.dim()), (b.labels(), b.dim()));
        assert_near("representations", a.values(), b.values(), 1e-5);
    }
    let config = KnnConfig {
        neighbours: 5,
        ..KnnConfig::default()
    };
    let (a, b) = (
        knn(&found.features, &config)?,
        knn(&expected.features, &config)?,
    );
    assert_eq!(a.accuracy, b.accuracy);
    Ok(())
}

#[test]
fn rows_for_files_are_those_of_the_portable_kernels() -> Result<()> {
    let Some([portable, emulated]) = encoders()? else {
        return Ok(());
    };
    let dataset = limited(open("embedded", Split::Test)?, 20);
    let view = View {
        image_size: SIDE,
        workers: 1,
    };
    for output in [EncoderOutput::Representation, EncoderOutput::Embedding] {
        let rows = |encoder| image_rows(encoder, output, &dataset, "test", view, &mut |_| {});
        let (found, expected) = (rows(&emulated)?, rows(&portable)?);
        assert_eq!((found.dim, found.count()), (expected.dim, 20));
        assert_near(output.name(), &found.values, &expected.values, 1e-5);
    }
    Ok(())
}

#[test]
fn losses_at_other_numbers_of_negatives_are_those_of_the_portable_kernels() -> Result<()> {
    let Some(encoders) = encoders()? else {
        return Ok(());
    };
    let config = ContrastConfig {
        negative_counts: vec![1, 6],
        loss: LossConfig {
            temperature: 0.2,
            alpha: Alpha::Equivalent(256.0),
        },
        batch_size: 16,
        batches: 2,
        draws: 3,
        seed: 4,
    };
    let recipe = Recipe::new(RecipeConfig::new(RecipeName::Fashion, SIDE))?;
    let dataset = limited(open("embedded", Split::Test)?, 32);
    let measured =
        encoders.map(|encoder| contrast(&encoder, &encoder, dataset.clone(), &recipe, &config));
    let [expected, found] = measured;
    let (expected, found) = (expected?, found?);
    assert_eq!(found.images, 32);
    let numbers = |at: &AtCount| {
        let gaps = [at.expected_loss_gap, at.expected_gradient_scale_gap];
        [
            [at.loss, at.loss_error],
            [at.gradient_scale, at.gradient_scale_deviation],
            gaps,
        ]
        .concat()
    };
    let all = |result: &eqco_eval::ContrastResult| {
        let every = result.at_counts.iter().chain([&result.with_all]);
        every.flat_map(numbers).collect::<Vec<f64>>()
    };
    for (a, b) in all(&found).iter().zip(all(&expected)) {
        // Similarities of unit rows that are near to 2e-7, over a temperature of 0.2.
        assert!((a - b).abs() <= 1e-5, "{a}, expected {b}");
    }
    assert!(found.with_all.loss > found.at_counts[0].loss);
    Ok(())
}

/// Two epochs of two steps, and the tuned weights.
fn tuned(encoder: &Encoder) -> Result<(SupervisedResult, Vec<Vec<f32>>)> {
    let classifier = Classifier::on_encoder(encoder, 10)?;
    assert_eq!(classifier.backend().name(), encoder.backend().name());
    let config = SupervisedConfig {
        epochs: 2,
        least_steps: 0,
        batch_size: 16,
        ..SupervisedConfig::default()
    };
    let images = images(32, 20)?;
    let result = train_supervised(&classifier, "fine-tuned", &images, &config, &mut |_| {})?;
    let tensors = classifier.to_checkpoint()?;
    let values = tensors
        .iter()
        .map(|(_, tensor)| tensor.flatten_all()?.to_vec1());
    Ok((result, values.collect::<candle_core::Result<_>>()?))
}

#[test]
fn fine_tuning_is_that_of_the_portable_kernels() -> Result<()> {
    let Some([portable, emulated]) = encoders()? else {
        return Ok(());
    };
    let before = encoder_sha256(&emulated)?;
    let ((expected, weights), (found, found_weights)) = (tuned(&portable)?, tuned(&emulated)?);
    assert_eq!(
        encoder_sha256(&emulated)?,
        before,
        "the encoder is not touched"
    );
    assert_eq!(found.plan, expected.plan);
    assert_eq!(found.plan.steps, 4);
    for (a, b) in found.epochs.iter().zip(&expected.epochs) {
        let error = (a.train_loss - b.train_loss).abs();
        assert!(error <= 1e-5, "{a:?}, expected {b:?}");
    }
    // Four steps, each of which starts from what the last one has left.
    for (a, b) in found_weights.iter().zip(&weights) {
        assert_near("weights", a, b, 1e-4);
    }
    Ok(())
}
