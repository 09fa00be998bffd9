//! Tests of the way from images to features, and images for other tests.

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
