//! The loader's promises: order, determinism, resuming, substitutes, errors.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::sync::Arc;

use eqco_data::loader::{Batch, Epoch, Loader, LoaderConfig};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{DataError, Dataset, Image, Split, limited, open};
use tempfile::{TempDir, tempdir};

fn fashion() -> Recipe {
    Recipe::new(RecipeConfig::new(RecipeName::Fashion, 28)).unwrap()
}

fn eval(image_size: usize) -> Recipe {
    Recipe::new(RecipeConfig::new(RecipeName::Eval, image_size)).unwrap()
}

fn embedded(count: usize) -> Arc<dyn Dataset> {
    limited(open("embedded", Split::Train).unwrap(), count)
}

fn loader(dataset: Arc<dyn Dataset>, config: LoaderConfig) -> Loader {
    Loader::new(dataset, vec![fashion(), fashion()], config).unwrap()
}

/// Everything that a batch holds.
type Content = (Vec<u32>, Vec<u32>, Vec<Vec<u8>>);

fn contents(batches: impl Iterator<Item = Result<Batch, DataError>>) -> Vec<Content> {
    let content = |batch: Batch| {
        (
            batch.indices.clone(),
            batch.labels.clone(),
            batch.views().unwrap().to_vec(),
        )
    };
    batches.map(|batch| content(batch.unwrap())).collect()
}

#[test]
fn bytes_do_not_depend_on_the_number_of_workers() {
    let epoch = |workers| {
        let config = LoaderConfig {
            batch_size: 32,
            workers,
            seed: 5,
            ..Default::default()
        };
        contents(loader(embedded(300), config).epoch(3, 0))
    };
    let one = epoch(1);
    assert_eq!(one.len(), 9);
    assert_eq!(one, epoch(2));
    assert_eq!(one, epoch(5));
}

#[test]
fn an_epoch_can_be_entered_at_any_batch() {
    let config = LoaderConfig {
        batch_size: 32,
        workers: 2,
        seed: 5,
        ..Default::default()
    };
    let loader = loader(embedded(300), config);
    let whole = contents(loader.epoch(1, 0));
    for first in [1, 4, 8] {
        assert_eq!(contents(loader.epoch(1, first)), whole[first as usize..]);
    }
    assert_eq!(loader.epoch(1, 9).count(), 0);
    assert_eq!(loader.epoch(1, u64::MAX).count(), 0);
}

#[test]
fn every_sample_appears_exactly_once() {
    for (shuffle, drop_last) in [(true, false), (false, false), (true, true)] {
        let config = LoaderConfig {
            batch_size: 32,
            shuffle,
            drop_last,
            ..Default::default()
        };
        let loader = loader(embedded(300), config);
        let batches = contents(loader.epoch(0, 0));
        assert_eq!(batches.len() as u64, loader.batches_per_epoch());
        let last = batches.last().unwrap();
        assert_eq!(last.0.len(), if drop_last { 32 } else { 300 % 32 });
        assert_eq!(last.2[0].len(), last.0.len() * 28 * 28 * 3);
        let indices: Vec<u32> = batches.iter().flat_map(|batch| batch.0.clone()).collect();
        let distinct: BTreeSet<_> = indices.iter().collect();
        assert_eq!(indices.len(), if drop_last { 288 } else { 300 });
        assert_eq!(distinct.len(), indices.len());
        assert_eq!(indices.is_sorted(), !shuffle);
        for (indices, labels, _) in &batches {
            let expected: Vec<u32> = indices
                .iter()
                .map(|&index| loader.dataset().label(index as usize).unwrap())
                .collect();
            assert_eq!(labels, &expected);
        }
    }
}

#[test]
fn epochs_seeds_and_views_differ() {
    let config = LoaderConfig {
        batch_size: 64,
        shuffle: false,
        ..Default::default()
    };
    let first = |seed, epoch| {
        let loader = loader(
            embedded(64),
            LoaderConfig {
                seed,
                ..config.clone()
            },
        );
        contents(loader.epoch(epoch, 0)).remove(0)
    };
    let base = first(0, 0);
    for other in [&base.2[1], &first(0, 1).2[0], &first(1, 0).2[0]] {
        let same = base.2[0].chunks(28 * 28 * 3).zip(other.chunks(28 * 28 * 3));
        assert_eq!(same.filter(|(a, b)| a == b).count(), 0);
    }
}

#[test]
fn the_eval_view_is_the_image() {
    let dataset = embedded(20);
    let config = LoaderConfig {
        batch_size: 20,
        shuffle: false,
        ..Default::default()
    };
    let loader = Loader::new(Arc::clone(&dataset), vec![eval(28)], config).unwrap();
    let batch = loader.epoch(0, 0).next().unwrap().unwrap();
    assert_eq!((batch.len(), batch.views().unwrap().len()), (20, 1));
    for (row, pixels) in batch.views().unwrap()[0].chunks(28 * 28 * 3).enumerate() {
        assert_eq!(pixels, dataset.image(row).unwrap().pixels());
    }
}

#[test]
fn limited_sets_are_balanced() {
    let dataset = embedded(1_005);
    let mut counts = [0; 10];
    for index in 0..dataset.len() {
        counts[dataset.label(index).unwrap() as usize] += 1;
    }
    assert_eq!(counts, [101, 101, 101, 101, 101, 100, 100, 100, 100, 100]);
    assert_eq!(
        dataset.name(),
        "Fashion-MNIST 10k/2k (embedded), 1005 images"
    );
    assert_eq!(embedded(50_000).len(), 10_000);
}

/// 40 copies of a good JPEG in class folders, of which these numbers are then damaged.
fn folder_with_bad_files(bad: &[usize]) -> (TempDir, Arc<dyn Dataset>) {
    let root = tempdir().unwrap();
    let good = fs::read("tests/golden/files/420.jpg").unwrap();
    for class in ["a", "b"] {
        fs::create_dir(root.path().join(class)).unwrap();
    }
    for number in 0..40 {
        let class = if number < 20 { "a" } else { "b" };
        let content = match bad.iter().position(|&index| index == number) {
            None => good.clone(),
            Some(0) => good[..good.len() / 2].to_vec(),
            Some(1) => b"this is text".to_vec(),
            Some(_) => Vec::new(),
        };
        fs::write(
            root.path().join(class).join(format!("{number:02}.jpg")),
            content,
        )
        .unwrap();
    }
    let dataset = open(root.path().to_str().unwrap(), Split::Train).unwrap();
    (root, dataset)
}

#[test]
fn bad_files_are_replaced_and_counted() {
    let bad = [3, 11, 25];
    let (_root, dataset) = folder_with_bad_files(&bad);
    let epoch = |workers| {
        let config = LoaderConfig {
            batch_size: 8,
            workers,
            max_bad_share: 0.1,
            ..Default::default()
        };
        let loader = Loader::new(Arc::clone(&dataset), vec![eval(16)], config).unwrap();
        let batches = contents(loader.epoch(0, 0));
        // Counted once, however often it is met.
        loader
            .epoch(1, 0)
            .for_each(|batch| assert_eq!(batch.unwrap().len(), 8));
        assert_eq!(loader.skipped(), 3);
        batches
    };
    let batches = epoch(1);
    assert_eq!(batches, epoch(3));
    assert_eq!(batches.len(), 5);
    for (indices, _, _) in &batches {
        assert!(
            indices
                .iter()
                .all(|&index| !bad.contains(&(index as usize)))
        );
        // No substitute beside its own other occurrence.
        assert_eq!(indices.iter().collect::<BTreeSet<_>>().len(), 8);
    }
}

#[test]
fn a_resumed_epoch_counts_the_bad_files_of_the_batches_that_were_used() {
    let (_root, dataset) = folder_with_bad_files(&[3, 11, 25]);
    let loader = |max_bad_share| {
        let config = LoaderConfig {
            batch_size: 8,
            workers: 3,
            max_bad_share,
            ..Default::default()
        };
        Loader::new(Arc::clone(&dataset), vec![eval(16)], config).unwrap()
    };
    let met = |loader: &Loader, batches: Range<usize>| -> BTreeSet<u32> {
        let epoch = loader.epoch(0, batches.start as u64);
        let taken = epoch.take(batches.len());
        taken
            .flat_map(|batch| batch.unwrap().skipped.clone())
            .collect()
    };
    let whole = met(&loader(0.1), 0..5);
    assert_eq!(whole, BTreeSet::from([3, 11, 25]));
    for stop in 0..=5 {
        let before = met(&loader(0.1), 0..stop);
        let resumed = loader(0.1);
        resumed.resume_skipped(&before.iter().copied().collect::<Vec<_>>());
        assert_eq!(resumed.skipped(), before.len());
        assert_eq!(&before | &met(&resumed, stop..5), whole, "stop {stop}");
        assert_eq!(resumed.skipped(), 3);
    }
    // What was met before counts against the share: the third one is too many.
    let resumed = loader(0.05);
    resumed.resume_skipped(&[3, 11]);
    let error = resumed.epoch(0, 0).find_map(Result::err).unwrap();
    assert!(
        matches!(error, DataError::TooManyBadImages { bad: 3, .. }),
        "{error}"
    );
}

#[test]
fn too_many_bad_files_are_fatal() {
    let (_root, dataset) = folder_with_bad_files(&[3, 11, 25]);
    let config = LoaderConfig {
        batch_size: 8,
        max_bad_share: 0.05,
        ..Default::default()
    };
    let loader = Loader::new(dataset, vec![eval(16)], config).unwrap();
    let mut epoch = loader.epoch(0, 0);
    let error = epoch
        .find_map(Result::err)
        .expect("three of forty are more than 5 %");
    match &error {
        DataError::TooManyBadImages {
            bad,
            total,
            examples,
            ..
        } => {
            assert_eq!((*bad, *total, examples.len()), (3, 40, 3));
        }
        other => panic!("{other:?}"),
    }
    let message = error.to_string();
    for part in [
        "03.jpg: ",
        "11.jpg: neither PNG nor JPEG",
        "25.jpg: the file is empty",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(epoch.next().is_none());
}

#[test]
fn a_set_without_a_single_good_image_is_an_error() {
    let (_root, dataset) = folder_with_bad_files(&(0..40).collect::<Vec<_>>());
    let config = LoaderConfig {
        batch_size: 8,
        max_bad_share: 1.0,
        ..Default::default()
    };
    let loader = Loader::new(dataset, vec![eval(16)], config).unwrap();
    let error = loader.epoch(0, 0).next().unwrap().unwrap_err();
    assert!(
        matches!(error, DataError::TooManyBadImages { bad: 40, .. }),
        "{error}"
    );
}

/// A data set that panics on one image.
struct Panicking;

impl Dataset for Panicking {
    fn name(&self) -> &str {
        "panicking"
    }
    fn len(&self) -> usize {
        100
    }
    fn class_names(&self) -> &[String] {
        &[]
    }
    fn label(&self, _index: usize) -> Option<u32> {
        None
    }
    fn image(&self, index: usize) -> Result<Image, DataError> {
        assert!(index != 57, "image 57 is cursed");
        Image::new(4, 4, vec![0; 48])
    }
    fn describe(&self, index: usize) -> String {
        index.to_string()
    }
}

#[test]
fn a_panic_in_a_worker_is_an_error() {
    let config = LoaderConfig {
        batch_size: 10,
        shuffle: false,
        workers: 3,
        ..Default::default()
    };
    let loader = Loader::new(Arc::new(Panicking), vec![eval(4)], config).unwrap();
    let results: Vec<_> = loader.epoch(0, 0).collect();
    assert_eq!(results.len(), 6);
    assert!(
        results[..5]
            .iter()
            .all(|batch| batch.as_ref().unwrap().labels.is_empty())
    );
    let error = results[5].as_ref().unwrap_err();
    assert!(matches!(error, DataError::Worker { .. }));
    assert!(error.to_string().contains("image 57 is cursed"), "{error}");
}

#[test]
fn dropping_an_epoch_early_joins_and_leaves_the_loader_usable() {
    let config = LoaderConfig {
        batch_size: 16,
        workers: 4,
        ..Default::default()
    };
    let loader = loader(embedded(2_000), config);
    for taken in [0, 1, 3] {
        let mut epoch = loader.epoch(0, 0);
        assert_eq!(
            epoch.by_ref().take(taken).filter(Result::is_ok).count(),
            taken
        );
    }
    // Batches outlive the epoch and the loader.
    let batch = loader.epoch(0, 0).next().unwrap().unwrap();
    drop(loader);
    assert_eq!(batch.views().unwrap()[1].len(), 16 * 28 * 28 * 3);
}

#[test]
fn loader_and_batches_can_change_threads() {
    fn is_send<T: Send>() {}
    is_send::<Loader>();
    is_send::<Epoch>();
    is_send::<Batch>();
}

#[test]
fn impossible_settings_are_refused() {
    let refused = |config: LoaderConfig, views: usize| {
        let error = Loader::new(embedded(100), vec![fashion(); views], config)
            .err()
            .unwrap();
        assert!(matches!(error, DataError::InvalidSetting { .. }));
        error.to_string()
    };
    let base = LoaderConfig {
        batch_size: 10,
        ..Default::default()
    };
    assert!(
        refused(
            LoaderConfig {
                batch_size: 0,
                ..base.clone()
            },
            1
        )
        .starts_with("batch_size")
    );
    assert!(
        refused(
            LoaderConfig {
                batch_size: 101,
                ..base.clone()
            },
            1
        )
        .contains("at most 100")
    );
    for max_bad_share in [-0.1, 1.1, f64::NAN] {
        let config = LoaderConfig {
            max_bad_share,
            ..base.clone()
        };
        assert!(refused(config, 1).starts_with("max_bad_share"));
    }
    assert!(refused(base.clone(), 0).starts_with("views"));
    assert!(refused(base, 3).starts_with("views"));
}
