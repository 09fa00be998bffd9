//! A step in micro-batches has the gradients of the whole batch: same keys, same draw of negatives, less memory.

use candle_core::{Device, Result, Tensor};
use eqco_core::{Alpha, DrawKind, LossConfig};
use eqco_models::method::{Contrast, Method, MethodConfig, MethodName, StepKey};
use eqco_models::tape::Gradients;
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, ProjectionHeadConfig,
};

const SIDE: usize = 16;
const BATCH: usize = 24;
/// Batch-norm groups, the same in both ways of doing the step.
const GROUP: usize = 4;

fn encoder() -> Result<Encoder> {
    let config = EncoderConfig::cifar(Architecture::Resnet18, 4);
    let head = ProjectionHeadConfig {
        kind: HeadKind::BatchNormMlp,
        hidden_dim: 0,
        embedding_dim: 16,
    };
    let normalization = Normalization::FASHION_MNIST;
    Encoder::new(&config, &head, normalization, 1, &Device::Cpu)
}

fn config(name: MethodName, micro_batch: usize) -> MethodConfig {
    let negative_count = match name {
        MethodName::Simo => 5,
        MethodName::MocoV2 => 40,
        MethodName::Simclr => 0,
    };
    MethodConfig {
        name,
        negative_count,
        draw: DrawKind::PerQuery,
        ema_coefficient: 0.9,
        batch_norm_group: GROUP,
        micro_batch,
    }
}

/// Images that have nothing in common, as bytes.
fn views(seed: u32) -> Vec<u8> {
    let hash = |place: u32| (place ^ seed).wrapping_mul(2_654_435_761).rotate_left(13) as u8;
    (0..(BATCH * SIDE * SIDE * 3) as u32).map(hash).collect()
}

/// Gradients of all parameters after one step, and what the step says.
fn step(name: MethodName, micro_batch: usize) -> Result<(Vec<Tensor>, Contrast, Encoder)> {
    let encoder = encoder()?;
    let loss = LossConfig {
        temperature: 0.2,
        alpha: Alpha::Equivalent(256.0),
    };
    let config = config(name, micro_batch);
    config.validate(BATCH).unwrap();
    let mut method = Method::new(&config, loss, &encoder, 7)?;
    let mut gradients = Gradients::new(encoder.parameters())?;
    let (query, key) = (views(1), views(2));
    let (query, key) = (encoder.upload(&query, SIDE)?, encoder.upload(&key, SIDE)?);
    let at = StepKey { seed: 7, step: 3 };
    let contrast = method.contrast(&encoder, &query, &key, at, &mut gradients)?;
    let found = encoder
        .parameters()
        .parameters()
        .iter()
        .map(|parameter| gradients.get(parameter).expect("reached").copy())
        .collect::<Result<_>>()?;
    Ok((found, contrast, encoder))
}

fn largest(tensor: &Tensor) -> Result<f32> {
    tensor.abs()?.flatten_all()?.max(0)?.to_scalar()
}

#[test]
fn gradients_and_statistics_are_those_of_the_whole_batch() -> Result<()> {
    for name in [MethodName::Simo, MethodName::MocoV2, MethodName::Simclr] {
        let (whole, all, _) = step(name, 0)?;
        let all = all.statistics.wait()?;
        for micro_batch in [4, 8, 12, 24] {
            let (parts, some, _) = step(name, micro_batch)?;
            for (whole, part) in whole.iter().zip(&parts) {
                let (scale, error) = (largest(whole)?, largest(&(whole - part)?)?);
                assert!(
                    error <= 2e-5 * scale.max(1e-3),
                    "{name:?} in parts of {micro_batch}: {error} of {scale}"
                );
            }
            let (a, b) = (all, some.statistics.wait()?);
            for (a, b) in [
                (a.loss, b.loss),
                (a.contrast_top1, b.contrast_top1),
                (a.gradient_scale, b.gradient_scale),
                (a.gradient_scale_deviation, b.gradient_scale_deviation),
                (a.guaranteed_bound, b.guaranteed_bound),
                (a.positive_similarity, b.positive_similarity),
                (a.negative_similarity, b.negative_similarity),
            ] {
                assert!((a - b).abs() < 1e-5, "{name:?}: {a} {b}");
            }
        }
    }
    Ok(())
}

#[test]
fn running_statistics_move_once_a_step() -> Result<()> {
    let buffers = |encoder: &Encoder| -> Result<Vec<Tensor>> {
        encoder
            .parameters()
            .buffers()
            .iter()
            .map(|buffer| buffer.value().copy())
            .collect()
    };
    for name in [MethodName::Simo, MethodName::Simclr] {
        let (_, _, whole) = step(name, 0)?;
        let (_, _, parts) = step(name, 8)?;
        let untouched = buffers(&encoder()?)?;
        for ((whole, part), before) in buffers(&whole)?
            .iter()
            .zip(buffers(&parts)?)
            .zip(&untouched)
        {
            // SimCLR's groups come in another order, of which the running mean forgets the early ones.
            let bound = if name == MethodName::Simo { 1e-5 } else { 0.3 };
            let moved = largest(&(whole - before)?)?;
            let error = largest(&(whole - part)?)?;
            assert!(error <= bound * moved, "{name:?}: {error} of {moved}");
        }
    }
    Ok(())
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let refused = |micro_batch, group| {
        let config = MethodConfig {
            batch_norm_group: group,
            ..config(MethodName::Simo, micro_batch)
        };
        config.validate(BATCH).unwrap_err().to_string()
    };
    assert!(refused(7, 0).contains("parts of 7 images do not divide a batch of 24"));
    assert!(refused(1, 0).contains("parts of 1 images"));
    assert!(refused(12, 8).contains("groups of 8 images do not divide parts of 12"));
}
