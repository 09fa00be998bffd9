//! One row of numbers per image, with its label: what every evaluation starts from.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::EvalError;

/// Where features come from; written into every result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Name of the data set, for example "Fashion-MNIST 10k/2k (embedded)".
    pub data: String,
    /// Part of the data set: "train" or "test".
    pub split: String,
    /// What made the features of the images, for example "raw pixels, 28x28".
    pub representation: String,
}

impl Origin {
    /// The three names in the order of the fields.
    pub fn new(data: &str, split: &str, representation: &str) -> Self {
        let [data, split, representation] = [data, split, representation].map(str::to_owned);
        Self {
            data,
            split,
            representation,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} ({})",
            self.representation, self.data, self.split
        )
    }
}

/// Labelled features, kept in memory: `values` is row-major `[count, dim]`.
///
/// Every value is finite, every label below `class_count`, and there is at least one row and one
/// dimension: the constructor refuses anything else, so the evaluations need not look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    origin: Origin,
    values: Vec<f32>,
    dim: usize,
    labels: Vec<u32>,
    class_count: usize,
    /// Index of every row's image in its data set.
    images: Vec<usize>,
}

impl Features {
    /// Checks and wraps `values` (row-major `[labels.len(), dim]`).
    ///
    /// # Errors
    /// [`EvalError::Unlabelled`] if there are values but neither labels nor classes,
    /// [`EvalError::Empty`], [`EvalError::Length`], [`EvalError::Label`] and
    /// [`EvalError::NotFinite`] for the first offence in row order.
    pub fn new(
        origin: Origin,
        values: Vec<f32>,
        dim: usize,
        labels: Vec<u32>,
        class_count: usize,
    ) -> Result<Self, EvalError> {
        let rows = labels.len();
        let name = || origin.to_string();
        if class_count == 0 || (rows == 0 && !values.is_empty()) {
            return Err(EvalError::Unlabelled { origin: name() });
        }
        if rows == 0 || dim == 0 {
            return Err(EvalError::Empty {
                origin: name(),
                rows,
                dim,
            });
        }
        if rows.checked_mul(dim) != Some(values.len()) {
            return Err(EvalError::Length {
                origin: name(),
                rows,
                dim,
                values: values.len(),
            });
        }
        if let Some(row) = labels
            .iter()
            .position(|&label| label as usize >= class_count)
        {
            return Err(EvalError::Label {
                origin: name(),
                row,
                label: labels[row],
                class_count,
            });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let (row, column) = (at / dim, at % dim);
            return Err(EvalError::NotFinite {
                origin: name(),
                row,
                column,
                value: values[at],
            });
        }
        Ok(Self {
            origin,
            values,
            dim,
            labels,
            class_count,
            images: (0..rows).collect(),
        })
    }

    /// The same rows, made from other images than the first ones of the data set: one index a row.
    pub(crate) fn with_images(self, images: Vec<usize>) -> Self {
        debug_assert_eq!(images.len(), self.count(), "one image a row");
        Self { images, ..self }
    }

    /// Index in its data set of the image that each row was made from: the row itself, unless images
    /// could not be read and were left out.
    pub fn images(&self) -> &[usize] {
        &self.images
    }

    /// Where the features come from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// All values, row-major `[count, dim]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The features of one image, `[dim]`. `index` must be below `count()`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..][..self.dim]
    }

    /// Numbers per image.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// One label per image, below `class_count()`.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Number of images, at least one.
    pub fn count(&self) -> usize {
        self.labels.len()
    }

    /// Number of classes, at least one.
    pub fn class_count(&self) -> usize {
        self.class_count
    }

    /// The same images with other features, `[count, dim]`.
    ///
    /// # Errors
    /// As [`Features::new`].
    pub(crate) fn with_values(&self, values: Vec<f32>, dim: usize) -> Result<Self, EvalError> {
        let (origin, labels) = (self.origin.clone(), self.labels.clone());
        let features = Self::new(origin, values, dim, labels, self.class_count)?;
        Ok(features.with_images(self.images.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin::new("toy", "train", "by hand")
    }

    #[test]
    fn bad_input_is_refused_with_its_place() {
        let new = |values: &[f32], dim, labels: &[u32], classes| {
            Features::new(origin(), values.to_vec(), dim, labels.to_vec(), classes).unwrap_err()
        };
        let error = new(&[1.0, 2.0, f32::NAN, 4.0], 2, &[0, 1], 2);
        assert!(
            matches!(
                error,
                EvalError::NotFinite {
                    row: 1,
                    column: 0,
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("learning rate"));
        let error = new(&[1.0, f32::INFINITY], 1, &[0, 1], 2);
        assert!(
            matches!(
                error,
                EvalError::NotFinite {
                    row: 1,
                    column: 0,
                    ..
                }
            ),
            "{error}"
        );
        let error = new(&[1.0, 2.0, 3.0], 2, &[0, 1], 2);
        assert!(
            matches!(
                error,
                EvalError::Length {
                    rows: 2,
                    dim: 2,
                    values: 3,
                    ..
                }
            ),
            "{error}"
        );
        let error = new(&[1.0, 2.0], 1, &[0, 2], 2);
        assert!(
            matches!(
                error,
                EvalError::Label {
                    row: 1,
                    label: 2,
                    ..
                }
            ),
            "{error}"
        );
        let error = new(&[1.0, 2.0], 1, &[], 0);
        assert!(matches!(error, EvalError::Unlabelled { .. }), "{error}");
        assert!(error.hint().unwrap().contains("sub-folder per class"));
        assert!(
            error.to_string().starts_with("by hand of toy (train)"),
            "{error}"
        );
        assert!(matches!(
            new(&[], 3, &[], 2),
            EvalError::Empty {
                rows: 0,
                dim: 3,
                ..
            }
        ));
        assert!(matches!(
            new(&[], 0, &[0], 2),
            EvalError::Empty {
                rows: 1,
                dim: 0,
                ..
            }
        ));
        let error = new(&[1.0], usize::MAX, &[0, 0], 1);
        assert!(
            matches!(error, EvalError::Length { .. }),
            "no overflow: {error}"
        );
    }
}
