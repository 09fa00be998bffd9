//! Every method on real batches: loader to encoder to loss to optimiser.

use std::sync::Arc;

use candle_core::{Device, Result};
use eqco_core::{Alpha, BatchStatistics, DrawKind, LossConfig};
use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{Split, limited, open};
use eqco_models::checkpoint::{self, Checkpoint, CheckpointMetadata};
use eqco_models::method::{Method, MethodConfig, MethodName, StepKey};
use eqco_models::optim::{Optimizer, OptimizerConfig};
use eqco_models::tape::Gradients;
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, ProjectionHeadConfig,
};

const SIDE: usize = 28;
const BATCH: usize = 32;

/// Pairs of views of the first batches of the embedded set.
fn views(batches: usize) -> Vec<[Vec<u8>; 2]> {
    let data = limited(open("embedded", Split::Train).unwrap(), batches * BATCH);
    let recipe = Recipe::new(RecipeConfig::new(RecipeName::Fashion, SIDE)).unwrap();
    let config = LoaderConfig {
        batch_size: BATCH,
        workers: 1,
        ..LoaderConfig::default()
    };
    let loader = Loader::new(Arc::clone(&data), vec![recipe.clone(), recipe], config).unwrap();
    loader
        .epoch(0, 0)
        .map(|batch| batch.unwrap())
        .map(|batch| [0, 1].map(|view| batch.views().unwrap()[view].clone()))
        .collect()
}

fn encoder(kind: HeadKind) -> Result<Encoder> {
    let config = EncoderConfig::cifar(Architecture::Resnet18, 4);
    let head = ProjectionHeadConfig {
        kind,
        hidden_dim: 0,
        embedding_dim: 16,
    };
    Encoder::new(
        &config,
        &head,
        Normalization::FASHION_MNIST,
        1,
        &Device::Cpu,
    )
}

fn method_config(name: MethodName) -> MethodConfig {
    let negative_count = match name {
        MethodName::Simo => 8,
        MethodName::MocoV2 => 80,
        MethodName::Simclr => 0,
    };
    MethodConfig {
        name,
        negative_count,
        draw: DrawKind::PerQuery,
        ema_coefficient: 0.9,
        batch_norm_group: 0,
        micro_batch: 0,
    }
}

fn train(
    config: MethodConfig,
    alpha: Alpha,
    kind: HeadKind,
    steps: u64,
) -> Result<(Vec<BatchStatistics>, Encoder)> {
    let encoder = encoder(kind)?;
    let loss = LossConfig {
        temperature: 0.2,
        alpha,
    };
    let mut method = Method::new(&config, loss, &encoder, 1)?;
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), encoder.parameters())?;
    let mut gradients = Gradients::new(encoder.parameters())?;
    let batches = views(6);
    let mut history = Vec::new();
    for step in 0..steps {
        let [query, key] = &batches[step as usize % batches.len()];
        let (query, key) = (encoder.upload(query, SIDE)?, encoder.upload(key, SIDE)?);
        gradients.reset();
        history.push(
            method
                .contrast(
                    &encoder,
                    &query,
                    &key,
                    StepKey { seed: 1, step },
                    &mut gradients,
                )?
                .statistics
                .wait()?,
        );
        optimizer.step(encoder.parameters(), &gradients, 0.05)?;
    }
    Ok((history, encoder))
}

/// Mean of a statistic over some steps.
fn mean(history: &[BatchStatistics], statistic: impl Fn(&BatchStatistics) -> f64) -> f64 {
    history.iter().map(statistic).sum::<f64>() / history.len() as f64
}

#[test]
fn every_method_learns_to_tell_its_positives() -> Result<()> {
    let equivalent = Alpha::Equivalent(256.0);
    for (name, alpha, kind) in [
        (MethodName::Simo, equivalent, HeadKind::BatchNormMlp),
        (MethodName::Simo, Alpha::Decoupled, HeadKind::BatchNormMlp),
        (MethodName::MocoV2, Alpha::Infonce, HeadKind::BatchNormMlp),
        (MethodName::Simclr, equivalent, HeadKind::BatchNormMlp),
    ] {
        let (history, _) = train(method_config(name), alpha, kind, 36)?;
        // MoCo's queue begins with random vectors, easy negatives, which real keys have replaced after three steps.
        let (early, late) = (&history[4..10], &history[30..]);
        let (first, last) = (mean(early, |s| s.loss), mean(late, |s| s.loss));
        assert!(
            last < first - 0.1,
            "{name:?} {alpha}: loss {first:.3} to {last:.3}"
        );
        let chance = 1.0 / (1 + method_config(name).negatives_per_query(BATCH)) as f64;
        let found = mean(late, |s| s.contrast_top1);
        assert!(
            found > 2.0 * chance,
            "{name:?} {alpha}: contrast top-1 {found:.3}, chance {chance:.3}"
        );
    }
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_bits() -> Result<()> {
    let run = || -> Result<Vec<Vec<f32>>> {
        let (_, encoder) = train(
            method_config(MethodName::Simo),
            Alpha::Equivalent(256.0),
            HeadKind::BatchNormMlp,
            4,
        )?;
        encoder
            .parameters()
            .to_named()?
            .iter()
            .map(|(_, tensor)| tensor.flatten_all()?.to_vec1())
            .collect()
    };
    assert_eq!(run()?, run()?);
    Ok(())
}

/// The whole SiMo step against central differences of its loss. The momentum encoder stands still (coefficient 1), so
/// the loss is a function of the query encoder alone.
#[test]
fn the_gradient_of_a_whole_step_is_the_slope_of_its_loss() -> Result<()> {
    let encoder = encoder(HeadKind::BatchNormMlp)?;
    let config = MethodConfig {
        ema_coefficient: 1.0,
        ..method_config(MethodName::Simo)
    };
    let loss = LossConfig {
        temperature: 0.2,
        alpha: Alpha::Equivalent(256.0),
    };
    let mut method = Method::new(&config, loss, &encoder, 1)?;
    let [query, key] = &views(1)[0];
    let (query, key) = (encoder.upload(query, SIDE)?, encoder.upload(key, SIDE)?);
    let mut gradients = Gradients::new(encoder.parameters())?;
    let mut loss_now = |gradients: &mut Gradients| -> Result<f64> {
        gradients.reset();
        Ok(method
            .contrast(
                &encoder,
                &query,
                &key,
                StepKey { seed: 1, step: 0 },
                gradients,
            )?
            .statistics
            .wait()?
            .loss)
    };
    loss_now(&mut gradients)?;
    let parameters = encoder.parameters().parameters();
    for parameter in [
        &parameters[0],
        &parameters[parameters.len() - 3],
        &parameters[parameters.len() - 1],
    ] {
        let gradient = gradients
            .get(parameter)
            .expect("every parameter has a gradient")
            .copy()?;
        let norm = gradient.sqr()?.sum_all()?.to_scalar::<f32>()?.sqrt();
        let original = parameter.value().copy()?;
        // Along the normalised gradient the slope is the gradient's norm.
        let mut at = |distance: f64| -> Result<f64> {
            parameter
                .var()
                .set(&(&original + (&gradient * (distance / f64::from(norm)))?)?)?;
            loss_now(&mut Gradients::new(encoder.parameters())?)
        };
        // A change of the loss of about 0.02: far above rounding, below the curvature.
        let width = 0.01 / f64::from(norm);
        let slope = (at(width)? - at(-width)?) / (2.0 * width);
        at(0.0)?;
        let error = (slope / f64::from(norm) - 1.0).abs();
        assert!(
            error < 0.02,
            "{}: slope {slope}, gradient norm {norm}",
            parameter.name()
        );
    }
    Ok(())
}

#[test]
fn a_checkpoint_gives_back_the_same_representations() -> Result<()> {
    let (_, encoder) = train(
        method_config(MethodName::Simo),
        Alpha::Equivalent(256.0),
        HeadKind::BatchNormMlp,
        3,
    )?;
    let metadata = CheckpointMetadata {
        encoder: *encoder.config(),
        projection_head: *encoder.head_config(),
        normalization: encoder.normalization(),
        image_size: SIDE,
        training: Default::default(),
        step: 3,
        epoch: 0,
        commit: "test".into(),
        progress: Default::default(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    checkpoint::save(
        &path,
        &Checkpoint {
            metadata,
            tensors: encoder.to_checkpoint()?,
        },
    )?;
    let restored = Encoder::from_checkpoint(&checkpoint::load(&path)?, &Device::Cpu)?;

    let [pixels, _] = &views(1)[0];
    let values = |encoder: &Encoder| -> Result<Vec<f32>> {
        encoder.represent(pixels, SIDE)?.flatten_all()?.to_vec1()
    };
    assert_eq!(values(&encoder)?, values(&restored)?);
    assert!(values(&restored)?.iter().any(|value| *value > 0.0));
    Ok(())
}

/// With groups of their own statistics, batch norm sees each group as a separate batch (MoCo on one device).
#[test]
fn moco_with_groups_runs_and_refuses_groups_that_do_not_divide() -> Result<()> {
    let config = MethodConfig {
        batch_norm_group: 8,
        ..method_config(MethodName::MocoV2)
    };
    let (history, _) = train(config, Alpha::Infonce, HeadKind::BatchNormMlp, 2)?;
    assert!(history.iter().all(|statistics| statistics.loss.is_finite()));
    let message = MethodConfig {
        batch_norm_group: 5,
        ..config
    }
    .validate(BATCH)
    .unwrap_err()
    .to_string();
    assert!(
        message.contains("groups of 5") && message.contains("32"),
        "{message}"
    );
    let crowded = MethodConfig {
        negative_count: BATCH,
        ..method_config(MethodName::Simo)
    };
    let message = crowded.validate(BATCH).unwrap_err().to_string();
    assert!(
        message.contains("the nearest that it can have is 31"),
        "{message}"
    );
    Ok(())
}

/// Pixels of one image, to be sure that views are views of the same image in the same place of the batch.
#[test]
fn the_loader_hands_out_views_of_the_same_images() {
    let [query, key] = &views(1)[0];
    let brightness = |pixels: &[u8]| -> Vec<f64> {
        pixels
            .chunks_exact(SIDE * SIDE * 3)
            .map(|image| image.iter().map(|p| f64::from(*p)).sum::<f64>())
            .collect()
    };
    let (query, key) = (brightness(query), brightness(key));
    let correlation = |a: &[f64], b: &[f64]| {
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let (ma, mb) = (mean(a), mean(b));
        let product: f64 = a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum();
        let norm = |v: &[f64], m: f64| v.iter().map(|x| (x - m).powi(2)).sum::<f64>().sqrt();
        product / (norm(a, ma) * norm(b, mb))
    };
    let shifted: Vec<f64> = key
        .iter()
        .cycle()
        .skip(1)
        .take(key.len())
        .copied()
        .collect();
    let (paired, unpaired) = (correlation(&query, &key), correlation(&query, &shifted));
    assert!(
        paired > 0.3 && paired > unpaired + 0.2,
        "paired {paired:.2}, unpaired {unpaired:.2}"
    );
}
