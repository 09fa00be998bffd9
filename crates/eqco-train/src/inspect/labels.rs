//! How many images each class has.

use eqco_data::Dataset;
use serde::Serialize;

use super::Spread;

/// Images by class. Needs the labels alone, no image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelCounts {
    /// Over all classes, those without images included.
    #[serde(flatten)]
    pub spread: Spread,
    /// Images of each class, in the order of labels.
    pub counts: Vec<usize>,
}

impl LabelCounts {
    /// Counts the labels of all images; `None` if they have no classes.
    pub fn of(dataset: &dyn Dataset) -> Option<Self> {
        let mut counts = vec![0; dataset.class_names().len()];
        for label in (0..dataset.len()).filter_map(|index| dataset.label(index)) {
            // Labels are below the number of classes: the trait says so.
            counts[label as usize] += 1;
        }
        Some(Self {
            spread: Spread::of(counts.clone())?,
            counts,
        })
    }
}
