//! The first images of a data set, equally many of each class.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Dataset;
use crate::{DataError, Image};

/// A part of another data set.
struct Limited {
    whole: Arc<dyn Dataset>,
    name: String,
    /// Indices into the whole, ascending.
    indices: Vec<u32>,
}

/// The first `count` images of `dataset`, equally many of each class (classes that run out leave
/// their share to the others; if it does not divide evenly, the first classes get one more). Of an
/// unlabelled data set simply the first ones. At least one image is kept, and order is kept.
///
/// The same arguments always give the same images; the name tells the number.
pub fn limited(dataset: Arc<dyn Dataset>, count: usize) -> Arc<dyn Dataset> {
    let count = count.max(1);
    if count >= dataset.len() {
        return dataset;
    }
    let mut classes: BTreeMap<Option<u32>, Vec<u32>> = BTreeMap::new();
    for index in 0..dataset.len() {
        classes
            .entry(dataset.label(index))
            .or_default()
            .push(index as u32);
    }
    let longest = classes.values().map(Vec::len).max().unwrap_or(0);
    let rounds = (0..longest).flat_map(|round| {
        classes
            .values()
            .filter_map(move |indices| indices.get(round).copied())
    });
    let mut indices: Vec<u32> = rounds.take(count).collect();
    indices.sort_unstable();
    let name = format!("{}, {count} images", dataset.name());
    Arc::new(Limited {
        whole: dataset,
        name,
        indices,
    })
}

impl Limited {
    fn index(&self, index: usize) -> usize {
        self.indices[index] as usize
    }
}

impl Dataset for Limited {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn class_names(&self) -> &[String] {
        self.whole.class_names()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.whole.label(self.index(index))
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        self.whole.image(self.index(index))
    }

    fn describe(&self, index: usize) -> String {
        self.whole.describe(self.index(index))
    }
}
