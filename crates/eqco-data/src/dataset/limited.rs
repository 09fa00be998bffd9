//! The first images of a data set, equally many of each class.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Dataset, subset};

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
    subset(dataset, name, indices)
}
