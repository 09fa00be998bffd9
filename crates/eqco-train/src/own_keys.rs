//! Keys of a query's own image among MoCo's negatives: where the queue is about as long as the data set, keys of the epoch
//! before are still in it.
//!
//! They are false negatives, a few among many; in SiMo and SimCLR there are none, for a batch holds an image once.

use std::collections::VecDeque;

use eqco_data::loader::Loader;
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

/// How many keys of its own image a query meets, on average over each batch of epoch `epoch` of a run; nothing where there is
/// no queue.
///
/// Counted in the order that the loader has planned: a function of seed and epoch alone, so that a resumed run counts on as an
/// undisturbed one. Images that stand in for unreadable ones, and steps that have been skipped, are not looked at.
pub fn of_epoch(config: &TrainConfig, loader: &Loader, epoch: u64) -> Vec<f64> {
    let (queue, batch) = (config.method.negative_count, config.data.loader.batch_size);
    match config.method.name {
        MethodName::MocoV2 => {
            let used = loader.batches_per_epoch() as usize * batch;
            let images = loader.dataset().len();
            counted((queue, batch), images, used, epoch, |epoch| {
                loader.planned_order(epoch)
            })
        }
        MethodName::Simo | MethodName::Simclr => Vec::new(),
    }
}

/// The same for a queue of `queue` keys over `images` images, the first `used` of whose `order` an epoch takes in whole batches.
fn counted(
    (queue, batch): (usize, usize),
    images: usize,
    used: usize,
    epoch: u64,
    order: impl Fn(u64) -> Vec<u32>,
) -> Vec<f64> {
    let before = epoch.min(queue.div_ceil(used.max(1)) as u64);
    let earlier = (epoch - before..epoch).flat_map(|epoch| {
        let mut order = order(epoch);
        order.truncate(used);
        order
    });
    let mut keys: VecDeque<u32> = earlier.collect();
    keys.drain(..keys.len().saturating_sub(queue));
    let mut held = vec![0u32; images];
    keys.iter().for_each(|key| held[*key as usize] += 1);
    let batches = order(epoch);
    let count = |queries: &[u32]| {
        let met: u32 = queries.iter().map(|query| held[*query as usize]).sum();
        for query in queries {
            held[*query as usize] += 1;
            keys.push_back(*query);
        }
        for left in keys.drain(..keys.len().saturating_sub(queue)) {
            held[left as usize] -= 1;
        }
        f64::from(met) / queries.len() as f64
    };
    batches[..used].chunks(batch).map(count).collect()
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
    use std::sync::Arc;

    use eqco_data::loader::LoaderConfig;
    use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
    use eqco_data::{Split, limited, open};

    use super::*;

    /// So many epochs are gone through.
    const EPOCHS: u64 = 200;

    fn loader(images: usize, batch: usize) -> Loader {
        let recipe = Recipe::new(RecipeConfig::new(RecipeName::Eval, 4)).unwrap();
        let config = LoaderConfig {
            batch_size: batch,
            workers: 1,
            ..LoaderConfig::default()
        };
        let data = limited(open("synthetic", Split::Train).unwrap(), images);
        Loader::new(Arc::clone(&data), vec![recipe], config).unwrap()
    }

    /// Own keys in a queue by query, over every batch that the loader hands out.
    fn met(loader: &Loader, queue: usize) -> Vec<Vec<f64>> {
        let mut keys = VecDeque::new();
        let mut of_batch = |indices: &[u32]| {
            let met = keys.iter().filter(|key| indices.contains(key)).count();
            keys.extend(indices.iter().copied());
            keys.drain(..keys.len().saturating_sub(queue));
            met as f64 / indices.len() as f64
        };
        let batches = |epoch| {
            loader
                .epoch(epoch, 0)
                .map(|batch| batch.unwrap().indices.clone())
        };
        let epochs =
            (0..EPOCHS).map(|epoch| batches(epoch).map(|taken| of_batch(&taken)).collect());
        epochs.collect()
    }

    /// Shorter than an epoch, an epoch long, longer; with images left out of every epoch, and rows that a batch does not fill.
    const CASES: [(usize, usize, usize); 5] = [
        (40, 4, 12),
        (40, 4, 40),
        (40, 4, 100),
        (43, 4, 60),
        (30, 5, 13),
    ];

    #[test]
    fn what_is_counted_is_what_a_queue_of_the_loaders_batches_holds() {
        for (images, batch, queue) in CASES {
            let loader = loader(images, batch);
            let used = images / batch * batch;
            for (epoch, expected) in (0..).zip(met(&loader, queue)) {
                let found = counted((queue, batch), images, used, epoch, |epoch| {
                    loader.planned_order(epoch)
                });
                assert_eq!(found, expected, "{images} images, K {queue}, epoch {epoch}");
            }
        }
    }

    #[test]
    fn the_expected_number_is_the_mean_of_what_is_counted() {
        for (images, batch, queue) in CASES {
            let steps = (images / batch) as u64;
            let expected = expected(queue, batch, steps, images);
            // The queue of the first ones is not full.
            let counts = met(&loader(images, batch), queue).split_off(4).concat();
            let mean = counts.iter().sum::<f64>() / counts.len() as f64;
            // Four standard errors of a rare event.
            let error = 4.0 * (expected / (counts.len() * batch) as f64).sqrt();
            assert!(
                (mean - expected).abs() < error,
                "{images} images, K {queue}: expected {expected:.3} +- {error:.3}, counted {mean:.3}"
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
