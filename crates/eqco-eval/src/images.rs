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
        let values = describe(&batch.views[0])?;
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
pub(crate) mod tests {
    use eqco_data::{DataError, Image};

    use super::*;

    /// Images in memory, labelled in turn; those listed as bad cannot be read.
    pub(crate) struct MemoryImages {
        images: Vec<Image>,
        class_names: Vec<String>,
        bad: Vec<usize>,
    }

    impl MemoryImages {
        pub(crate) fn new(images: Vec<Image>, class_names: &[&str]) -> Self {
            let class_names = class_names.iter().map(ToString::to_string).collect();
            Self {
                images,
                class_names,
                bad: Vec::new(),
            }
        }

        pub(crate) fn pixels(&self, index: usize) -> &[u8] {
            self.images[index].pixels()
        }
    }

    impl Dataset for MemoryImages {
        fn name(&self) -> &str {
            "in memory"
        }
        fn len(&self) -> usize {
            self.images.len()
        }
        fn class_names(&self) -> &[String] {
            &self.class_names
        }
        fn label(&self, index: usize) -> Option<u32> {
            let classes = self.class_names.len();
            (classes > 0).then(|| (index % classes) as u32)
        }
        fn image(&self, index: usize) -> Result<Image, DataError> {
            if self.bad.contains(&index) {
                let (image, reason) = (self.describe(index), "made unreadable".to_owned());
                return Err(DataError::Decode { image, reason });
            }
            Ok(self.images[index].clone())
        }
        fn describe(&self, index: usize) -> String {
            format!("image {index}")
        }
    }

    /// Coloured gradients, every image another one, with three classes.
    pub(crate) fn gradients(count: usize, size: usize) -> MemoryImages {
        let image = |index: usize| {
            let pixel = |place: usize| ((place * (3 + index) + 40 * index) % 256) as u8;
            Image::new(size, size, (0..size * size * 3).map(pixel).collect()).unwrap()
        };
        MemoryImages::new((0..count).map(image).collect(), &["a", "b", "c"])
    }

    pub(crate) fn images(train: usize, test: usize, size: usize) -> EvalImages {
        let (train, test) = (gradients(train, size), gradients(test, size));
        EvalImages::new(Arc::new(train), Arc::new(test), size, 2).unwrap()
    }

    fn first_pixel(images: &EvalImages) -> Result<FeaturePair, EvalError> {
        let bytes = images.image_size() * images.image_size() * 3;
        images.features("first pixel", 1, &mut |_| {}, &mut |pixels| {
            Ok(pixels
                .chunks_exact(bytes)
                .map(|image| f32::from(image[0]))
                .collect())
        })
    }

    #[test]
    fn order_labels_and_origin_are_kept_over_several_batches() {
        let pair = first_pixel(&images(600, 7, 4)).unwrap();
        let wanted: Vec<f32> = (0..600).map(|index| (40 * index % 256) as f32).collect();
        assert_eq!(pair.train().values(), wanted);
        assert_eq!(pair.train().labels()[598..], [1, 2]);
        assert_eq!(pair.test().count(), 7);
        let origin = pair.test().origin().to_string();
        assert_eq!(origin, "first pixel of in memory (test)");
    }

    #[test]
    fn an_unreadable_image_is_left_out_and_no_other_counted_twice() {
        let mut train = gradients(600, 4);
        train.bad = vec![5];
        let images = EvalImages::new(Arc::new(train), Arc::new(gradients(7, 4)), 4, 1).unwrap();
        let pair = first_pixel(&images).unwrap();
        assert_eq!(pair.train().count(), 599);
        let mut indices = pair.train().images().to_vec();
        for (&index, value) in indices.iter().zip(pair.train().values()) {
            assert_eq!((40 * index % 256) as f32, *value, "image {index}");
        }
        indices.sort_unstable();
        assert_eq!(indices[4..6], [4, 6]);
        let mut values = pair.train().values().to_vec();
        values.sort_by(f32::total_cmp);
        let mut wanted: Vec<f32> = (0..600)
            .filter(|&index| index != 5)
            .map(|index: usize| (40 * index % 256) as f32)
            .collect();
        wanted.sort_by(f32::total_cmp);
        assert_eq!(values, wanted);
    }

    #[test]
    fn images_kept_in_memory_are_the_same_images() {
        let whole = images(60, 30, 4);
        let kept = whole.in_memory(12, 30).unwrap();
        assert_eq!((kept.train_count(), kept.count()), (12, 42));
        let (whole, kept) = (first_pixel(&whole).unwrap(), first_pixel(&kept).unwrap());
        assert_eq!(kept.test().values(), whole.test().values());
        assert_eq!(kept.train().values(), &whole.train().values()[..12]);
        assert_eq!(kept.train().labels(), &whole.train().labels()[..12]);
    }

    #[test]
    fn parts_without_or_with_other_classes_are_refused_before_reading() {
        let blank = || vec![Image::new(2, 2, vec![0; 12]).unwrap(); 3];
        let set = |names: &[&str]| -> Arc<dyn Dataset> {
            Arc::new(MemoryImages {
                bad: vec![0, 1, 2],
                ..MemoryImages::new(blank(), names)
            })
        };
        let error = |a: &[&str], b: &[&str]| match EvalImages::new(set(a), set(b), 2, 1) {
            Err(error) => error,
            Ok(_) => panic!("{a:?} with {b:?} was accepted"),
        };
        assert!(matches!(error(&[], &[]), EvalError::Unlabelled { .. }));
        assert!(matches!(error(&["a"], &[]), EvalError::Unlabelled { .. }));
        assert!(matches!(
            error(&["a", "b"], &["a"]),
            EvalError::Mismatch {
                train: 2,
                test: 1,
                ..
            }
        ));
        let message = error(&["a", "b"], &["a", "c"]).to_string();
        assert_eq!(
            message,
            "class 1 is `b` in the training part and `c` in the test part"
        );
    }

    #[test]
    fn batches_shrink_with_the_size_of_the_images() {
        assert_eq!(
            [1, 28, 64, 224, 4096].map(batch_size),
            [256, 256, 256, 20, 8]
        );
    }
}
