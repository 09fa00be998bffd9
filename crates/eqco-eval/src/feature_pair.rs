//! A training part and a test part that belong together, and what is learnt from one for both.

use rayon::prelude::*;

use crate::{EvalError, Features};

/// Features of the training part and the test part of one data set by one representation.
#[derive(Clone, Debug, PartialEq)]
pub struct FeaturePair {
    train: Features,
    test: Features,
}

impl FeaturePair {
    /// Pairs the two parts.
    ///
    /// # Errors
    /// [`EvalError::Mismatch`] if they differ in dimensions or number of classes.
    pub fn new(train: Features, test: Features) -> Result<Self, EvalError> {
        let quantities = [
            ("dimensions", train.dim(), test.dim()),
            ("number of classes", train.class_count(), test.class_count()),
        ];
        match quantities
            .into_iter()
            .find(|(_, train, test)| train != test)
        {
            Some((quantity, train, test)) => Err(EvalError::Mismatch {
                quantity,
                train,
                test,
            }),
            None => Ok(Self { train, test }),
        }
    }

    /// The part to learn from.
    pub fn train(&self) -> &Features {
        &self.train
    }

    /// The part to measure on.
    pub fn test(&self) -> &Features {
        &self.test
    }

    /// Both parts with every dimension shifted and scaled to mean 0 and deviation 1 **on the
    /// training part**; the test part uses the same numbers. A dimension that is constant on the
    /// training part becomes 0 in both parts: nothing can be learnt from it.
    ///
    /// Mean and (population) deviation are summed in f64.
    ///
    /// # Errors
    /// [`EvalError::NotFinite`] if a value of the test part lies so far outside that it leaves the
    /// range of f32.
    pub fn standardized(&self) -> Result<Self, EvalError> {
        let (means, deviations) = moments(&self.train);
        // Below this the spread is rounding noise of the f32 input, not information.
        let scales: Vec<f64> = (means.iter().zip(&deviations))
            .map(|(mean, &deviation)| {
                if deviation > mean.abs() * 1e-6 {
                    1.0 / deviation
                } else {
                    0.0
                }
            })
            .collect();
        let apply = |part: &Features| {
            let mut values = part.values().to_vec();
            values.par_chunks_mut(part.dim()).for_each(|row| {
                for ((value, mean), scale) in row.iter_mut().zip(&means).zip(&scales) {
                    *value = ((f64::from(*value) - mean) * scale) as f32;
                }
            });
            part.with_values(values, part.dim())
        };
        Ok(Self {
            train: apply(&self.train)?,
            test: apply(&self.test)?,
        })
    }
}

/// Mean and deviation of every dimension, two passes in f64.
fn moments(features: &Features) -> (Vec<f64>, Vec<f64>) {
    let count = features.count() as f64;
    let mut means = vec![0.0; features.dim()];
    for row in features.values().chunks_exact(features.dim()) {
        means
            .iter_mut()
            .zip(row)
            .for_each(|(mean, &value)| *mean += f64::from(value));
    }
    means.iter_mut().for_each(|mean| *mean /= count);
    let mut deviations = vec![0.0; features.dim()];
    for row in features.values().chunks_exact(features.dim()) {
        for ((deviation, &value), mean) in deviations.iter_mut().zip(row).zip(&means) {
            *deviation += (f64::from(value) - mean).powi(2);
        }
    }
    deviations
        .iter_mut()
        .for_each(|deviation| *deviation = (*deviation / count).sqrt());
    (means, deviations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    fn origin() -> Origin {
        Origin::new("toy", "train", "by hand")
    }

    #[test]
    fn standardizing_uses_the_training_part_alone() {
        let train = [1.0, 7.0, 100.0, 3.0, 7.0, 100.0, 5.0, 7.0, 100.5].to_vec();
        let train = Features::new(origin(), train, 3, vec![0, 1, 0], 2).unwrap();
        let test = Features::new(origin(), vec![7.0, 9.0, 101.0], 3, vec![1], 2).unwrap();
        let FeaturePair { train, test } = FeaturePair::new(train, test)
            .unwrap()
            .standardized()
            .unwrap();
        let one = 1.5f32.sqrt(); // (5 - 3) / sqrt(8 / 3)
        let other = 0.5f32.sqrt(); // (1/6) / sqrt(1/18)
        let expected = [-one, 0.0, -other, 0.0, 0.0, -other, one, 0.0, 2.0 * other];
        for (value, expected) in train.values().iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value} {expected}");
        }
        // The second dimension is constant on the training part, hence dropped.
        for (value, expected) in test.values().iter().zip([2.0 * one, 0.0, 5.0 * other]) {
            assert!((value - expected).abs() < 1e-5, "{value} {expected}");
        }
        assert_eq!(test.labels(), [1]);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let a = Features::new(origin(), vec![1.0, 2.0], 2, vec![0], 2).unwrap();
        let b = Features::new(origin(), vec![1.0, 2.0], 1, vec![0, 1], 2).unwrap();
        let c = Features::new(origin(), vec![1.0, 2.0], 2, vec![0], 3).unwrap();
        let message = FeaturePair::new(a.clone(), b).unwrap_err().to_string();
        assert_eq!(
            message,
            "dimensions: the training part has 2, the test part 1"
        );
        let message = FeaturePair::new(a, c).unwrap_err().to_string();
        assert_eq!(
            message,
            "number of classes: the training part has 2, the test part 3"
        );
    }
}
