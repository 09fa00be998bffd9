//! A few images kept in memory as an encoder will see them, to be looked at again and again.

use eqco_data::{DataError, Dataset, Image};

/// Decoded and cropped images with their labels.
pub(crate) struct InMemory {
    pub(crate) name: String,
    pub(crate) class_names: Vec<String>,
    pub(crate) images: Vec<Image>,
    pub(crate) labels: Vec<u32>,
}

impl Dataset for InMemory {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.images.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied()
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        Ok(self.images[index].clone())
    }

    fn describe(&self, index: usize) -> String {
        format!("{}, image {index}", self.name)
    }
}
