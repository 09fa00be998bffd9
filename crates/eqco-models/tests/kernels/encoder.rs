//! Which parameters an encoder trains, and what each mode leaves alone.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};
use eqco_models::params::ParameterSet;
use eqco_models::tape::{Gradients, Mode};
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, ProjectionHeadConfig, Stem,
};

use crate::golden::{bits, largest_relative_error, values};
use crate::hashed::hashed;

const EMBEDDING_DIM: usize = 6;

fn encoder(
    architecture: Architecture,
    stem: Stem,
    kind: HeadKind,
    zero_init_residual: bool,
) -> Result<Encoder> {
    let config = EncoderConfig {
        architecture,
        width: 4,
        stem,
        zero_init_residual,
    };
    let head = ProjectionHeadConfig {
        kind,
        hidden_dim: 0,
        embedding_dim: EMBEDDING_DIM,
    };
    Encoder::new(&config, &head, Normalization::IMAGENET, 7, &Device::Cpu)
}

fn images(batch: usize, side: usize) -> Result<Tensor> {
    hashed("encoder images", &[batch, side, side, 3])
}

/// The largest absolute gradient of every parameter after one step; NaN where nothing arrived.
fn largest_gradients(encoder: &Encoder, side: usize) -> Result<Vec<(String, f64)>> {
    let mut tape = encoder.tape(Mode::Training);
    let embeddings = encoder.embed(&mut tape, &images(4, side)?)?;
    let mut gradients = Gradients::new(encoder.parameters())?;
    let gradient = hashed("embedding gradient", embeddings.dims())?;
    tape.backward(&embeddings, &gradient, &mut gradients, &[])?;
    let parameters = encoder.parameters().parameters().iter();
    parameters
        .map(|parameter| {
            let largest = match gradients.get(parameter) {
                None => f64::NAN,
                Some(gradient) => {
                    let sizes = values(gradient)?;
                    assert!(sizes.iter().all(|v| v.is_finite()), "{}", parameter.name());
                    sizes.iter().map(|v| v.abs()).fold(0.0, f64::max)
                }
            };
            Ok((parameter.name().to_string(), largest))
        })
        .collect()
}

#[test]
fn every_trainable_parameter_receives_a_gradient() -> Result<()> {
    let backbones = [
        (Architecture::Resnet18, Stem::Cifar, 16, 60),
        (Architecture::Resnet50, Stem::Imagenet, 40, 159),
    ];
    for (architecture, stem, side, backbone_parameters) in backbones {
        // A linear layer with bias has two parameters; a linear layer and a normalisation have three.
        for (kind, head_parameters) in [(HeadKind::Mlp, 4), (HeadKind::BatchNormMlp, 6)] {
            let encoder = encoder(architecture, stem, kind, false)?;
            let gradients = largest_gradients(&encoder, side)?;
            assert_eq!(gradients.len(), backbone_parameters + head_parameters);
            for (name, largest) in gradients {
                assert!(
                    largest > 0.0,
                    "{architecture:?}, {kind:?}, {name}: {largest}"
                );
            }
        }
    }
    Ok(())
}

/// Behind a scale of zero nothing flows back, exactly; the scale itself learns, and one change of it opens the block.
#[test]
fn zero_initialised_residual_branches_open_with_their_first_step() -> Result<()> {
    let encoder = encoder(Architecture::Resnet18, Stem::Cifar, HeadKind::Mlp, true)?;
    for (name, largest) in largest_gradients(&encoder, 16)? {
        let inside = name.contains(".layer")
            && [".conv1.", ".bn1.", ".conv2."]
                .iter()
                .any(|part| name.contains(part));
        assert_eq!(largest == 0.0, inside, "{name}: {largest}");
    }
    let mut tensors: HashMap<String, Tensor> =
        encoder.parameters().to_named()?.into_iter().collect();
    for (name, tensor) in &mut tensors {
        if name.contains(".layer") && name.ends_with(".bn2.weight") {
            *tensor = (&*tensor + 0.01)?;
        }
    }
    encoder.load_named("", &tensors)?;
    for (name, largest) in largest_gradients(&encoder, 16)? {
        assert!(largest > 0.0, "{name}");
    }
    Ok(())
}

fn all_bits(set: &ParameterSet) -> Result<Vec<(String, Vec<u32>)>> {
    let named = set.to_named()?;
    named
        .into_iter()
        .map(|(name, tensor)| Ok((name, bits(&tensor)?)))
        .collect()
}

fn backward_error(encoder: &Encoder, mode: Mode) -> Result<String> {
    let mut tape = encoder.tape(mode);
    let embeddings = encoder.embed(&mut tape, &images(4, 16)?)?;
    let gradient = hashed("embedding gradient", embeddings.dims())?;
    let mut gradients = Gradients::new(encoder.parameters())?;
    let refused = tape.backward(&embeddings, &gradient, &mut gradients, &[]);
    let reached = |p| gradients.get(p).is_some();
    assert!(!encoder.parameters().parameters().iter().any(reached));
    Ok(refused.expect_err("nothing was recorded").to_string())
}

#[test]
fn evaluation_changes_nothing_and_records_nothing() -> Result<()> {
    let encoder = encoder(
        Architecture::Resnet18,
        Stem::Cifar,
        HeadKind::BatchNormMlp,
        false,
    )?;
    let before = all_bits(encoder.parameters())?;
    let message = backward_error(&encoder, Mode::Evaluation)?;
    assert!(message.contains("training mode"), "{message}");
    assert_eq!(before, all_bits(encoder.parameters())?);
    Ok(())
}

#[test]
fn an_unrecorded_pass_computes_and_updates_as_training_does_but_has_no_gradient() -> Result<()> {
    let trained = encoder(
        Architecture::Resnet18,
        Stem::Cifar,
        HeadKind::BatchNormMlp,
        false,
    )?;
    let followed = trained.duplicate()?;
    let before = all_bits(trained.parameters())?;
    assert_eq!(before, all_bits(followed.parameters())?);
    let embed = |encoder: &Encoder, mode| {
        let mut tape = encoder.tape(mode);
        bits(&encoder.embed(&mut tape, &images(4, 16)?)?.to_tensor()?)
    };
    assert_eq!(
        embed(&trained, Mode::Training)?,
        embed(&followed, Mode::Unrecorded)?
    );
    let after = all_bits(followed.parameters())?;
    assert_eq!(all_bits(trained.parameters())?, after);
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        assert_eq!(before != after, name.contains(".running_"), "{name}");
    }
    let message = backward_error(&followed, Mode::Unrecorded)?;
    assert!(message.contains("training mode"), "{message}");
    Ok(())
}

#[test]
fn evaluation_sees_every_image_alone_and_embeddings_have_unit_length() -> Result<()> {
    let encoder = encoder(Architecture::Resnet50, Stem::Imagenet, HeadKind::Mlp, false)?;
    let batch = images(3, 40)?;
    let embed = |images: &Tensor| {
        let mut tape = encoder.tape(Mode::Evaluation);
        values(&encoder.embed(&mut tape, images)?.to_tensor()?)
    };
    let together = embed(&batch)?;
    for (index, row) in together.chunks_exact(EMBEDDING_DIM).enumerate() {
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        assert!((norm - 1.0).abs() < 1e-6, "{norm}");
        let alone = embed(&batch.narrow(0, index, 1)?)?;
        let error = largest_relative_error(&alone, row);
        assert!(error < 1e-5, "{error:e}");
    }
    assert!(
        largest_relative_error(
            &together[..EMBEDDING_DIM],
            &together[EMBEDDING_DIM..2 * EMBEDDING_DIM]
        ) > 1e-3
    );
    Ok(())
}
