//! Keys of a query's own image among MoCo's negatives: where the queue is about as long as the data set, keys of the epoch
//! before are still in it.
//!
//! They are false negatives, a few among many; in SiMo and SimCLR there are none, for a batch holds an image once.

use eqco_models::method::MethodName;

use crate::config::TrainConfig;

/// From so many a query on they are warned of.
const WORTH_A_WARNING: f64 = 0.01;

/// How many keys of its own image a query meets in a full queue of `queue` keys on average, over the `steps` batches of `batch`
/// images of an epoch, drawn from `images`.
///
/// In front of batch b there are b · batch keys of its own epoch, none of which is an own one, for an epoch takes no image twice.
/// Epochs are in orders of their own: each of the other keys is the own one with probability 1/images.
pub fn expected(queue: usize, batch: usize, steps: u64, images: usize) -> f64 {
    // Batches behind the queue's length meet none.
    let meeting = steps.min(queue.div_ceil(batch.max(1)) as u64);
    let older = (0..meeting).map(|step| queue as f64 - step as f64 * batch as f64);
    older.sum::<f64>() / (steps.max(1) as f64 * images.max(1) as f64)
}

/// The same for a run on `images` images.
pub fn of_run(config: &TrainConfig, steps_per_epoch: u64, images: usize) -> f64 {
    match config.method.name {
        MethodName::MocoV2 => {
            let batch = config.data.loader.batch_size;
            expected(config.method.negative_count, batch, steps_per_epoch, images)
        }
        MethodName::Simo | MethodName::Simclr => 0.0,
    }
}

/// What people should know about it, if anything.
pub fn warning(config: &TrainConfig, expected: f64, images: usize) -> Option<String> {
    let queue = config.method.negative_count;
    (expected >= WORTH_A_WARNING).then(|| {
        format!(
            "a queue of {queue} keys over {images} images: a query meets {expected:.2} older keys of its own image among its \
             negatives on average; --negatives below a tenth of the images makes that rare, and --alpha makes up for fewer"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use eqco_data::loader::{Loader, LoaderConfig};
    use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
    use eqco_data::{Split, limited, open};

    use super::*;

    /// Own keys in a queue by query, over the batches of the loader after the queue has been filled, and queries.
    fn counted(images: usize, batch: usize, queue: usize) -> (f64, f64) {
        let recipe = Recipe::new(RecipeConfig::new(RecipeName::Eval, 4)).unwrap();
        let config = LoaderConfig {
            batch_size: batch,
            workers: 1,
            ..LoaderConfig::default()
        };
        let data = limited(open("synthetic", Split::Train).unwrap(), images);
        let loader = Loader::new(Arc::clone(&data), vec![recipe], config).unwrap();
        let (mut keys, mut met, mut queries) = (VecDeque::new(), 0, 0);
        for epoch in 0..200 {
            for taken in loader.epoch(epoch, 0) {
                let indices = taken.unwrap().indices.clone();
                // Whole epochs alone: the average is one over their batches.
                if epoch >= 4 {
                    assert_eq!(keys.len(), queue);
                    queries += indices.len();
                    met += keys.iter().filter(|key| indices.contains(key)).count();
                }
                keys.extend(indices);
                keys.drain(..keys.len().saturating_sub(queue));
            }
        }
        (met as f64 / queries as f64, queries as f64)
    }

    #[test]
    fn the_expected_number_is_what_is_counted_in_the_loaders_own_order() {
        // Shorter than an epoch, an epoch long, longer; with images left out of every epoch in the last case.
        for (images, batch, queue) in [(40, 4, 12), (40, 4, 40), (40, 4, 100), (43, 4, 60)] {
            let steps = (images / batch) as u64;
            let expected = expected(queue, batch, steps, images);
            let (counted, queries) = counted(images, batch, queue);
            // Four standard errors of a rare event.
            let error = 4.0 * (expected / queries).sqrt();
            assert!(
                (counted - expected).abs() < error,
                "{images} images, K {queue}: expected {expected:.3} +- {error:.3}, counted {counted:.3}"
            );
        }
    }

    #[test]
    fn numbers_of_known_sets() {
        // CIFAR-10 under the queue of ImageNet: (65,536 - 97 * 256) / 50,000.
        assert!((expected(65_536, 256, 195, 50_000) - 0.81408).abs() < 1e-9);
        // ImageNet: 65,536 keys of the 1,281,024 of an epoch.
        let imagenet = expected(65_536, 256, 5_004, 1_281_167);
        assert!((imagenet - 0.001_313_6).abs() < 1e-6, "{imagenet}");
        assert_eq!(expected(1, 0, 0, 0), 0.0);
    }
}
