//! Features by a frozen encoder, with a proof that it stayed frozen.

use candle_core::{DType, Tensor};
use eqco_models::Encoder;
use sha2::{Digest, Sha256};

use crate::{EvalError, EvalImages, FeaturePair};

/// What [`represent`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Representation {
    /// Representations of all images, `[count, C]`, kept in memory.
    pub features: FeaturePair,
    /// Digest of the encoder, the same before the first and after the last image.
    pub encoder_sha256: String,
}

/// Passes every image once through the backbone in evaluation mode (running statistics, no
/// augmentation). `name` is what results call the representation; `progress` is told the number of
/// images done, of [`EvalImages::count`]. The encoder computes on its own device; rows are
/// brought to host memory batch by batch, so that what measures them does not depend on it.
///
/// # Errors
/// [`EvalError::EncoderChanged`] if any parameter or buffer has another value afterwards,
/// [`EvalError::NotFinite`] if the encoder answers with anything but numbers, [`EvalError::Data`]
/// and [`EvalError::Model`].
pub fn represent(
    encoder: &Encoder,
    name: &str,
    images: &EvalImages,
    progress: &mut dyn FnMut(usize),
) -> Result<Representation, EvalError> {
    let before = encoder_sha256(encoder)?;
    let features = images.features(
        name,
        encoder.representation_dim(),
        progress,
        &mut |pixels| {
            let rows = encoder.represent(pixels, images.image_size())?;
            Ok(rows.flatten_all()?.to_vec1::<f32>()?)
        },
    )?;
    let after = encoder_sha256(encoder)?;
    if before != after {
        return Err(EvalError::EncoderChanged { before, after });
    }
    Ok(Representation {
        features,
        encoder_sha256: before,
    })
}

/// SHA-256 over name, shape and little-endian f32 bytes of every parameter and buffer, in
/// declaration order; hexadecimal.
///
/// # Errors
/// [`EvalError::Model`] if a tensor cannot be read.
pub fn encoder_sha256(encoder: &Encoder) -> Result<String, EvalError> {
    let mut hash = Sha256::new();
    for (name, tensor) in encoder.parameters().to_named()? {
        add_tensor(&mut hash, &name, &tensor)?;
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Every part with its length before it, so that no two lists of tensors give the same bytes.
fn add_tensor(hash: &mut Sha256, name: &str, tensor: &Tensor) -> Result<(), EvalError> {
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    hash.update((tensor.rank() as u64).to_le_bytes());
    tensor
        .dims()
        .iter()
        .for_each(|&side| hash.update((side as u64).to_le_bytes()));
    let values = tensor
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    hash.update(
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect::<Vec<u8>>(),
    );
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use candle_core::Device;
    use eqco_models::{Architecture, EncoderConfig, HeadKind, Normalization, ProjectionHeadConfig};

    use super::*;
    use crate::images::tests::{gradients, images};

    pub(crate) fn encoder(seed: u64) -> Encoder {
        let config = EncoderConfig::cifar(Architecture::Resnet18, 2);
        let head = ProjectionHeadConfig {
            kind: HeadKind::BatchNormMlp,
            hidden_dim: 0,
            embedding_dim: 4,
        };
        Encoder::new(
            &config,
            &head,
            Normalization::FASHION_MNIST,
            seed,
            &Device::Cpu,
        )
        .unwrap()
    }

    #[test]
    fn rows_are_the_encoders_answers_in_the_order_of_the_data_set() {
        let (encoder, images) = (encoder(1), images(30, 10, 8));
        let mut told = Vec::new();
        let found = represent(&encoder, "untrained", &images, &mut |done| told.push(done)).unwrap();
        let train = found.features.train();
        assert_eq!(
            (train.dim(), train.count(), train.class_count()),
            (16, 30, 3)
        );
        assert_eq!(train.labels()[..4], [0, 1, 2, 0]);
        assert_eq!(told.last(), Some(&images.count()));
        for row in [0, 17, 29] {
            let alone = encoder.represent(gradients(30, 8).pixels(row), 8).unwrap();
            let alone = alone.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (a, b) in train.row(row).iter().zip(alone) {
                assert!((a - b).abs() < 1e-5, "row {row}: {a} {b}");
            }
        }
        assert_eq!(found.encoder_sha256, encoder_sha256(&encoder).unwrap());
    }

    #[test]
    fn a_change_of_the_encoder_is_noticed() {
        let (encoder, images) = (encoder(1), images(30, 10, 8));
        // Clones share their values, as an optimiser that was left running would.
        let shared = encoder.clone();
        let error = represent(&encoder, "untrained", &images, &mut |_| {
            let weight = shared.parameters().parameters().last().unwrap();
            weight.var().set(&(weight.value() + 1e-6).unwrap()).unwrap();
        })
        .unwrap_err();
        assert!(matches!(error, EvalError::EncoderChanged { .. }), "{error}");
    }

    #[test]
    fn the_digest_sees_every_tensor_and_nothing_else() {
        let digest = encoder_sha256(&encoder(1)).unwrap();
        assert_eq!(digest.len(), 64);
        assert_eq!(digest, encoder_sha256(&encoder(1)).unwrap());
        assert_ne!(digest, encoder_sha256(&encoder(2)).unwrap());
        let changed = encoder(1);
        let buffer = changed.parameters().buffers().last().unwrap().value();
        let names = encoder(1).parameters().to_named().unwrap();
        let (name, last) = names.last().unwrap();
        assert_eq!(last.dims(), buffer.dims(), "{name} is the last buffer");
        let mut tensors: std::collections::HashMap<_, _> = names.iter().cloned().collect();
        tensors.insert(name.clone(), (last + 1e-6).unwrap());
        changed.load_named("", &tensors).unwrap();
        assert_ne!(
            digest,
            encoder_sha256(&changed).unwrap(),
            "a buffer counts too"
        );
    }
}
