//! Weighted nearest-neighbour classification on frozen features.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::accuracy::{Accuracy, first_largest};
use crate::neighbours::{Neighbour, nearest_neighbours};
use crate::{EvalError, FeaturePair, Features, Protocol};

/// Settings of the nearest-neighbour evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KnnConfig {
    /// Training images that vote, from 1 to the number of training images.
    pub neighbours: usize,
    /// Divides the similarities in the votes' weights; finite and above 0.
    pub temperature: f64,
}

impl Default for KnnConfig {
    /// 20 neighbours, temperature 0.07.
    fn default() -> Self {
        Self {
            neighbours: 20,
            temperature: 0.07,
        }
    }
}

impl KnnConfig {
    /// Whether the settings suit `train_count` training images: worth asking before the features
    /// are made.
    ///
    /// # Errors
    /// [`EvalError::InvalidSetting`] naming the setting and its range.
    pub fn check(&self, train_count: usize) -> Result<(), EvalError> {
        let &Self {
            neighbours,
            temperature,
        } = self;
        if neighbours == 0 || neighbours > train_count {
            let expected = format!("1 to {train_count}, the number of training images");
            return Err(EvalError::setting("neighbours", expected, neighbours));
        }
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(EvalError::setting(
                "temperature",
                "a finite number above 0",
                temperature,
            ));
        }
        Ok(())
    }
}

/// Outcome of [`knn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnnResult {
    /// Accuracy on the test part.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Everything needed to repeat the measurement.
    pub protocol: Protocol<KnnConfig>,
}

/// Classifies every test row by its nearest training rows.
///
/// The protocol of Wu et al. 2018 ("Unsupervised Feature Learning via Non-Parametric Instance
/// Discrimination", section 3.4), which the evaluations of MoCo and its successors share: cosine
/// similarity s to every training image, the `neighbours` nearest ones vote for their class with
/// weight exp(s / temperature), the heaviest class wins. Their k is 200 for ImageNet's 1.28 million
/// images; ours is 20, because with a few thousand images per data set 200 neighbours reach far
/// into other classes.
///
/// Equal similarities rank by index (the lower first), equal votes go to the lower label, and a row
/// of zeros has similarity 0 to everything. Runs on the current rayon pool; the result does not
/// depend on its size.
///
/// # Errors
/// [`EvalError::InvalidSetting`] if the configuration is out of range, in particular if there are
/// fewer training rows than neighbours.
pub fn knn(features: &FeaturePair, config: &KnnConfig) -> Result<KnnResult, EvalError> {
    let predictions = knn_predictions(features, config)?;
    let queries = features.test();
    let method = "weighted k nearest neighbours, cosine similarity (Wu et al. 2018, section 3.4)";
    Ok(KnnResult {
        accuracy: Accuracy::of(&predictions, queries.labels(), queries.class_count()),
        protocol: Protocol::new(method, config, features),
    })
}

/// The class that [`knn`] gives to every test row, below `class_count`.
///
/// # Errors
/// Those of [`knn`].
pub fn knn_predictions(features: &FeaturePair, config: &KnnConfig) -> Result<Vec<u32>, EvalError> {
    let (bank, queries) = (features.train(), features.test());
    config.check(bank.count())?;
    let found = nearest_neighbours(
        bank.values(),
        queries.values(),
        bank.dim(),
        config.neighbours,
    );
    Ok(found
        .par_iter()
        .map(|neighbours| vote(neighbours, bank, config.temperature))
        .collect())
}

/// The class with the largest sum of exp(similarity / temperature) over the neighbours.
fn vote(neighbours: &[Neighbour], bank: &Features, temperature: f64) -> u32 {
    let mut votes = vec![0.0f64; bank.class_count()];
    let largest = f64::from(neighbours[0].similarity);
    for neighbour in neighbours {
        // A factor common to all votes: without it small temperatures would overflow.
        let below_largest = f64::from(neighbour.similarity) - largest;
        votes[bank.labels()[neighbour.index] as usize] += (below_largest / temperature).exp();
    }
    first_largest(&votes)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::Origin;

    fn features(
        split: &str,
        values: &[f32],
        dim: usize,
        labels: &[u32],
        classes: usize,
    ) -> Features {
        let origin = Origin::new("toy", split, "by hand");
        Features::new(origin, values.to_vec(), dim, labels.to_vec(), classes).unwrap()
    }

    fn random(split: &str, rows: usize, dim: usize, classes: u32, seed: u64) -> Features {
        let mut stream = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..rows * dim)
            .map(|_| stream.next_u32() as f32 / 2f32.powi(31) - 1.0)
            .collect();
        let labels: Vec<u32> = (0..rows).map(|_| stream.next_u32() % classes).collect();
        features(split, &values, dim, &labels, classes as usize)
    }

    fn predict(bank: &Features, query: &[f32], neighbours: usize, temperature: f64) -> u32 {
        let near = nearest_neighbours(bank.values(), query, bank.dim(), neighbours);
        vote(&near[0], bank, temperature)
    }

    /// The definition, in f64 and without blocks.
    fn reference(bank: &Features, query: &[f32], neighbours: usize, temperature: f64) -> u32 {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum()
        };
        let cosine = |a: &[f32]| dot(a, query) / (dot(a, a) * dot(query, query)).sqrt();
        let mut all: Vec<(f64, usize)> = (0..bank.count())
            .map(|row| (cosine(bank.row(row)), row))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut votes = vec![0.0; bank.class_count()];
        for (similarity, row) in &all[..neighbours] {
            votes[bank.labels()[*row] as usize] += (similarity / temperature).exp();
        }
        first_largest(&votes)
    }

    #[test]
    fn agrees_with_the_definition_in_f64() {
        // More rows than a block of the bank and more queries than a block of queries.
        let (bank, queries) = (
            random("train", 2_500, 9, 5, 1),
            random("test", 300, 9, 5, 2),
        );
        let pair = FeaturePair::new(bank.clone(), queries.clone()).unwrap();
        for (neighbours, temperature) in [(1, 0.07), (20, 0.07), (200, 0.5), (2_500, 0.1)] {
            let wanted: Vec<u32> = (0..queries.count())
                .map(|row| reference(&bank, queries.row(row), neighbours, temperature))
                .collect();
            let wanted = Accuracy::of(&wanted, queries.labels(), 5);
            let found = knn(
                &pair,
                &KnnConfig {
                    neighbours,
                    temperature,
                },
            )
            .unwrap();
            assert_eq!(
                found.accuracy, wanted,
                "{neighbours} neighbours, {temperature}"
            );
        }
    }

    #[test]
    fn votes_weigh_as_in_the_closed_form() {
        // Cosines to (1, 0): 1 for class 0; 0.8 twice for class 1. Class 1 wins when
        // 2 exp(0.8 / t) > exp(1 / t), which is t > 0.2 / ln 2 = 0.28854.
        let bank = features("train", &[3.0, 0.0, 0.8, 0.6, 4.0, -3.0], 2, &[0, 1, 1], 2);
        assert_eq!(predict(&bank, &[2.0, 0.0], 3, 0.2885), 0);
        assert_eq!(predict(&bank, &[2.0, 0.0], 3, 0.2886), 1);
        // With two neighbours the second row alone speaks for class 1, at any temperature.
        assert_eq!(predict(&bank, &[2.0, 0.0], 2, 100.0), 0);
        // exp(1 / 0.0001) is infinite even in f64.
        assert_eq!(predict(&bank, &[0.8, 0.6], 3, 1e-4), 1);
    }

    #[test]
    fn ties_go_to_the_lower_index_and_the_lower_label() {
        // All similarities to (1, 0) are equal; the one neighbour is the first row.
        let bank = features("train", &[1.0, 1.0, 2.0, 2.0, 5.0, 5.0], 2, &[2, 1, 1], 3);
        assert_eq!(predict(&bank, &[1.0, 0.0], 1, 0.07), 2);
        // Two neighbours of different classes with the same weight: the lower label.
        assert_eq!(predict(&bank, &[1.0, 0.0], 2, 0.07), 1);
    }

    #[test]
    fn zero_rows_and_extreme_lengths_are_harmless() {
        let bank = features(
            "train",
            &[0.0, 0.0, 1e30, 1e30, -1e-30, -1e-30],
            2,
            &[0, 1, 2],
            3,
        );
        assert_eq!(predict(&bank, &[1e-38, 1e-38], 3, 0.07), 1);
        assert_eq!(predict(&bank, &[-3e38, -3e38], 1, 0.07), 2);
        assert_eq!(
            predict(&bank, &[0.0, 0.0], 1, 0.07),
            0,
            "all similarities are 0"
        );
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let pair = FeaturePair::new(
            random("train", 500, 16, 4, 3),
            random("test", 400, 16, 4, 4),
        )
        .unwrap();
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| knn(&pair, &KnnConfig::default()).unwrap())
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let pair =
            FeaturePair::new(random("train", 10, 2, 2, 5), random("test", 4, 2, 2, 6)).unwrap();
        let message = |neighbours, temperature| {
            knn(
                &pair,
                &KnnConfig {
                    neighbours,
                    temperature,
                },
            )
            .unwrap_err()
            .to_string()
        };
        let expected = "neighbours: expected 1 to 10, the number of training images, got 11";
        assert_eq!(message(11, 0.07), expected);
        assert!(message(0, 0.07).ends_with("got 0"));
        assert_eq!(
            message(1, 0.0),
            "temperature: expected a finite number above 0, got 0"
        );
        assert!(message(1, f64::NAN).ends_with("got NaN"));
    }

    #[test]
    fn the_result_is_its_own_protocol() {
        let pair =
            FeaturePair::new(random("train", 30, 3, 2, 7), random("test", 4, 3, 2, 8)).unwrap();
        let result = knn(
            &pair,
            &KnnConfig {
                neighbours: 7,
                temperature: 0.1,
            },
        )
        .unwrap();
        let json = serde_json::to_value(&result).unwrap();
        assert_eq!(json["top1"], result.accuracy.top1);
        assert_eq!(
            json["protocol"]["config"],
            serde_json::json!({"neighbours": 7, "temperature": 0.1})
        );
        assert_eq!(json["protocol"]["train"]["count"], 30);
        assert_eq!(json["protocol"]["test"]["origin"]["data"], "toy");
        assert_eq!(
            (&json["protocol"]["dim"], &json["protocol"]["class_count"]),
            (&3.into(), &2.into())
        );
        assert_eq!(serde_json::from_value::<KnnResult>(json).unwrap(), result);
    }
}
