//! From two data sets to features: the one way in which every representation sees its images.

use std::sync::Arc;

use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{Dataset, Image, limited};

use crate::in_memory::InMemory;
use crate::{EvalError, FeaturePair, Features, Origin};

/// Turns the pixels of a batch `[N, S, S, 3]` into its features, row-major `[N, dim]`.
pub(crate) type Describe<'a> = dyn FnMut(&[u8]) -> Result<Vec<f32>, EvalError> + 'a;

/// How images are seen: all of an evaluation in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Side of the square that is seen, in pixels.
    pub image_size: usize,
    /// Threads that decode; 0 for one a processor core.
    pub workers: usize,
}

/// The features of every image of a data set that can be read, in the order of the data set.
pub(crate) struct Rows {
    /// Which images.
    pub(crate) indices: Vec<u32>,
    /// One label per row; none where the data set is unlabelled.
    pub(crate) labels: Vec<u32>,
    /// Row-major `[rows, dim]`.
    pub(crate) values: Vec<f32>,
}

/// Labelled training and test images of one data set, seen at one size.
///
/// Every representation is made from the same bytes: each image is resized so that its shorter side
/// has `image_size` pixels and cut to the square in its centre (the recipe `eval`), nothing is
/// random, and the order is the data set's.
#[derive(Clone)]
pub struct EvalImages {
    train: Arc<dyn Dataset>,
    test: Arc<dyn Dataset>,
    view: View,
}

impl EvalImages {
    /// Images to be seen as `image_size` x `image_size` pixels, decoded on `workers` threads (0: one
    /// for each processor core).
    ///
    /// # Errors
    /// [`EvalError::Unlabelled`] if a part has no classes, [`EvalError::Mismatch`] or
    /// [`EvalError::ClassNames`] if the parts have different ones. These come before any image is
    /// read.
    pub fn new(
        train: Arc<dyn Dataset>,
        test: Arc<dyn Dataset>,
        image_size: usize,
        workers: usize,
    ) -> Result<Self, EvalError> {
        for part in [&train, &test] {
            if part.class_names().is_empty() {
                return Err(EvalError::Unlabelled {
                    origin: part.name().to_owned(),
                });
            }
        }
        let (a, b) = (train.class_names(), test.class_names());
        if a.len() != b.len() {
            let quantity = "number of classes";
            return Err(EvalError::Mismatch {
                quantity,
                train: a.len(),
                test: b.len(),
            });
        }
        if let Some(label) = a.iter().zip(b).position(|(a, b)| a != b) {
            let (train, test) = (a[label].clone(), b[label].clone());
            return Err(EvalError::ClassNames { label, train, test });
        }
        let view = View {
            image_size,
            workers,
        };
        Ok(Self { train, test, view })
    }

    /// The same test images, seen in the same way, with another training part.
    ///
    /// # Errors
    /// Those of [`EvalImages::new`].
    pub fn with_train(&self, train: Arc<dyn Dataset>) -> Result<Self, EvalError> {
        let View {
            image_size,
            workers,
        } = self.view;
        Self::new(train, Arc::clone(&self.test), image_size, workers)
    }

    /// At most so many images of each part, in balanced classes, decoded and cropped now and kept in memory: for a
    /// measurement that is repeated while an encoder trains. Unreadable images are left out.
    ///
    /// # Errors
    /// [`EvalError::Data`] when images cannot be read.
    pub fn in_memory(&self, train: usize, test: usize) -> Result<Self, EvalError> {
        let keep = |dataset: &Arc<dyn Dataset>, count: usize| {
            let dataset = limited(Arc::clone(dataset), count);
            let side = self.view.image_size;
            let mut images = Vec::new();
            // A row is the place of its image among all that were read: only some of them are kept.
            let rows = rows_of(&dataset, self.view, 1, &mut |_| {}, &mut |pixels| {
                let first = images.len();
                let read = pixels.chunks_exact(side * side * 3);
                images.extend(read.map(<[u8]>::to_vec));
                Ok((first..images.len()).map(|place| place as f32).collect())
            })?;
            let image = |place: &f32| Image::new(side, side, images[*place as usize].clone());
            Ok::<Arc<dyn Dataset>, EvalError>(Arc::new(InMemory {
                name: dataset.name().to_owned(),
                class_names: dataset.class_names().to_vec(),
                images: rows.values.iter().map(image).collect::<Result<_, _>>()?,
                labels: rows.labels,
            }))
        };
        Ok(Self {
            train: keep(&self.train, train)?,
            test: keep(&self.test, test)?,
            ..self.clone()
        })
    }

    /// Side of the square that is seen, in pixels.
    pub fn image_size(&self) -> usize {
        self.view.image_size
    }

    /// How images are seen.
    pub fn view(&self) -> View {
        self.view
    }

    /// The training part, images as they are, before they are resized and cut.
    pub fn train(&self) -> &Arc<dyn Dataset> {
        &self.train
    }

    /// The test part in the same way.
    pub fn test(&self) -> &Arc<dyn Dataset> {
        &self.test
    }

    /// Number of training images.
    pub fn train_count(&self) -> usize {
        self.train.len()
    }

    /// Number of training and test images together.
    pub fn count(&self) -> usize {
        self.train.len() + self.test.len()
    }

    /// Class names in the order of the labels.
    pub fn class_names(&self) -> &[String] {
        self.train.class_names()
    }

    /// Passes every image once through `describe`. `progress` is told the number of images done, of
    /// both parts together.
    ///
    /// # Errors
    /// Those of reading the images and of `describe`.
    pub(crate) fn features(
        &self,
        representation: &str,
        dim: usize,
        progress: &mut dyn FnMut(usize),
        describe: &mut Describe<'_>,
    ) -> Result<FeaturePair, EvalError> {
        let mut part = |dataset: &Arc<dyn Dataset>, split: &str, done: usize| {
            let origin = Origin::new(dataset.name(), split, representation);
            self.part(
                dataset,
                origin,
                dim,
                &mut |count| progress(done + count),
                describe,
            )
        };
        FeaturePair::new(
            part(&self.train, "train", 0)?,
            part(&self.test, "test", self.train.len())?,
        )
    }

    /// Passes the test images alone through `describe`.
    ///
    /// # Errors
    /// Those of reading the images and of `describe`.
    pub(crate) fn test_features(
        &self,
        representation: &str,
        dim: usize,
        describe: &mut Describe<'_>,
    ) -> Result<Features, EvalError> {
        let origin = Origin::new(self.test.name(), "test", representation);
        self.part(&self.test, origin, dim, &mut |_| {}, describe)
    }

    fn part(
        &self,
        dataset: &Arc<dyn Dataset>,
        origin: Origin,
        dim: usize,
        progress: &mut dyn FnMut(usize),
        describe: &mut Describe<'_>,
    ) -> Result<Features, EvalError> {
        let rows = rows_of(dataset, self.view, dim, progress, describe)?;
        let classes = dataset.class_names().len();
        let images = rows.indices.iter().map(|&index| index as usize).collect();
        let features = Features::new(origin, rows.values, dim, rows.labels, classes)?;
        Ok(features.with_images(images))
    }
}

/// Passes every image of `dataset` once through `describe`; `progress` is told the number of images done.
///
/// # Errors
/// Those of reading the images and of `describe`.
pub(crate) fn rows_of(
    dataset: &Arc<dyn Dataset>,
    view: View,
    dim: usize,
    progress: &mut dyn FnMut(usize),
    describe: &mut Describe<'_>,
) -> Result<Rows, EvalError> {
    let recipe = Recipe::new(RecipeConfig::new(RecipeName::Eval, view.image_size))?;
    let config = LoaderConfig {
        batch_size: batch_size(view.image_size),
        workers: view.workers,
        drop_last: false,
        shuffle: false,
        ..LoaderConfig::default()
    };
    let loader = Loader::new(Arc::clone(dataset), vec![recipe], config)?;
    let mut rows = Rows {
        indices: Vec::with_capacity(dataset.len()),
        labels: Vec::new(),
        values: Vec::with_capacity(dataset.len() * dim),
    };
    let mut seen = vec![false; dataset.len()];
    let mut done = 0;
    for batch in loader.epoch(0, 0) {
        let batch = batch?;
        let values = describe(&batch.views()?[0])?;
        for (place, (&index, row)) in batch
            .indices
            .iter()
            .zip(values.chunks_exact(dim))
            .enumerate()
        {
            // The loader puts another image in the place of an unreadable one. To count that one
            // twice would be wrong, so the unreadable image is left out instead.
            if !std::mem::replace(&mut seen[index as usize], true) {
                rows.values.extend_from_slice(row);
                rows.labels.extend(batch.labels.get(place));
                rows.indices.push(index);
            }
        }
        done += batch.len();
        progress(done);
    }
    Ok(rows)
}

/// Images per batch: 256, fewer where images are so large that an encoder's activations for them
/// would need more than a few hundred megabytes.
fn batch_size(image_size: usize) -> usize {
    ((1 << 20) / (image_size * image_size).max(1)).clamp(8, 256)
}

#[cfg(test)]
pub(crate) mod tests;
