//! One row of numbers for every image of a data set, with its name, and its label where it has one.

use std::sync::Arc;

use eqco_data::Dataset;
use eqco_models::Encoder;
use serde::{Deserialize, Serialize};

use crate::images::{View, rows_of};
use crate::{EvalError, Origin, encoder_sha256};

/// Which answer of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderOutput {
    /// The backbone's, which evaluations use: not normalised, `representation_dim` numbers.
    Representation,
    /// The projection head's, which pre-training compares: of unit length, `embedding_dim` numbers.
    Embedding,
}

impl EncoderOutput {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Representation => "representations",
            Self::Embedding => "embeddings",
        }
    }

    /// Numbers per image.
    pub fn dim(self, encoder: &Encoder) -> usize {
        match self {
            Self::Representation => encoder.representation_dim(),
            Self::Embedding => encoder.head_config().embedding_dim,
        }
    }

    /// The answers to u8 images `[N, S, S, 3]`, row-major `[N, dim]`, in evaluation mode.
    ///
    /// # Errors
    /// [`EvalError::Model`] if the number of bytes does not fit the size.
    pub fn of_pixels(
        self,
        encoder: &Encoder,
        pixels: &[u8],
        image_size: usize,
    ) -> Result<Vec<f32>, EvalError> {
        let rows = match self {
            Self::Representation => encoder.represent(pixels, image_size)?,
            Self::Embedding => encoder.embed_pixels(pixels, image_size)?,
        };
        Ok(rows.flatten_all()?.to_vec1()?)
    }
}

/// The answers of an encoder to all images of a data set that can be read, in its order, kept in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRows {
    /// Data set, part and what made the rows.
    pub origin: Origin,
    /// Which answer of the encoder.
    pub output: EncoderOutput,
    /// Digest of the encoder, the same before the first and after the last image.
    pub encoder_sha256: String,
    /// Numbers per image.
    pub dim: usize,
    /// Row-major `[images, dim]`, all finite.
    pub values: Vec<f32>,
    /// Index of every image in the data set.
    pub indices: Vec<u32>,
    /// Path or id of every image.
    pub images: Vec<String>,
    /// Label of every image; `None` if the data set is unlabelled.
    pub labels: Option<Vec<u32>>,
    /// Class names in the order of the labels.
    pub class_names: Vec<String>,
}

impl ImageRows {
    /// Number of images.
    pub fn count(&self) -> usize {
        self.images.len()
    }

    /// The class of row `row`, which must be below `count()`; `None` if the data set is unlabelled.
    pub fn class(&self, row: usize) -> Option<&str> {
        let label = self.labels.as_ref()?[row];
        self.class_names.get(label as usize).map(String::as_str)
    }
}

/// Passes every image of `dataset`, labelled or not, once through the encoder in evaluation mode. `split` is what results call
/// the part; `progress` is told the number of images done. An image that cannot be read is left out.
///
/// # Errors
/// [`EvalError::EncoderChanged`], [`EvalError::NotFinite`], [`EvalError::Data`] and [`EvalError::Model`].
pub fn image_rows(
    encoder: &Encoder,
    output: EncoderOutput,
    dataset: &Arc<dyn Dataset>,
    split: &str,
    view: View,
    progress: &mut dyn FnMut(usize),
) -> Result<ImageRows, EvalError> {
    let origin = Origin::new(dataset.name(), split, output.name());
    let dim = output.dim(encoder);
    let before = encoder_sha256(encoder)?;
    let rows = rows_of(dataset, view, dim, progress, &mut |pixels| {
        output.of_pixels(encoder, pixels, view.image_size)
    })?;
    let after = encoder_sha256(encoder)?;
    if before != after {
        return Err(EvalError::EncoderChanged { before, after });
    }
    if let Some(at) = rows.values.iter().position(|value| !value.is_finite()) {
        return Err(EvalError::NotFinite {
            origin: origin.to_string(),
            row: at / dim,
            column: at % dim,
            value: rows.values[at],
        });
    }
    let describe = |&index: &u32| dataset.describe(index as usize);
    let is_labelled = !dataset.class_names().is_empty();
    Ok(ImageRows {
        origin,
        output,
        encoder_sha256: before,
        dim,
        images: rows.indices.iter().map(describe).collect(),
        labels: is_labelled.then_some(rows.labels),
        class_names: dataset.class_names().to_vec(),
        values: rows.values,
        indices: rows.indices,
    })
}

#[cfg(test)]
mod tests {
    use eqco_data::Image;

    use super::*;
    use crate::images::tests::{MemoryImages, gradients};
    use crate::representation::tests::encoder;

    const VIEW: View = View {
        image_size: 8,
        workers: 1,
    };

    fn rows(output: EncoderOutput, dataset: MemoryImages) -> ImageRows {
        let dataset: Arc<dyn Dataset> = Arc::new(dataset);
        image_rows(&encoder(1), output, &dataset, "train", VIEW, &mut |_| {}).unwrap()
    }

    #[test]
    fn labelled_rows_are_the_encoders_answers_under_their_names() {
        let found = rows(EncoderOutput::Representation, gradients(10, 8));
        assert_eq!(
            (found.count(), found.dim, found.values.len()),
            (10, 16, 160)
        );
        assert_eq!(
            found.labels.as_deref(),
            Some(&[0, 1, 2, 0, 1, 2, 0, 1, 2, 0][..])
        );
        assert_eq!(
            (found.images[7].as_str(), found.class(7)),
            ("image 7", Some("b"))
        );
        let alone = encoder(1).represent(gradients(10, 8).pixels(7), 8).unwrap();
        let alone = alone.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (a, b) in found.values[7 * 16..][..16].iter().zip(alone) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        assert_eq!(found.encoder_sha256, encoder_sha256(&encoder(1)).unwrap());
    }

    #[test]
    fn unlabelled_images_have_rows_too_and_embeddings_have_unit_length() {
        let images = (0..5).map(|i| Image::new(8, 8, vec![40 * i; 8 * 8 * 3]).unwrap());
        let found = rows(
            EncoderOutput::Embedding,
            MemoryImages::new(images.collect(), &[]),
        );
        assert_eq!((found.count(), found.dim), (5, 4));
        assert_eq!((found.labels.as_ref(), found.class(0)), (None, None));
        for row in found.values.chunks_exact(4) {
            let length: f32 = row.iter().map(|v| v * v).sum();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
    }
}
