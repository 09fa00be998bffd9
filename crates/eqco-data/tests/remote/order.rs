//! Epochs over remote shards: each sample once, the same order wherever it is begun, and nobody waits without end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eqco_data::loader::{Batch, LoaderConfig};
use eqco_data::{Cursor as Position, limited};

use super::server::Deed;
use super::*;

/// Nine shards, some small.
const COUNTS: [u32; 9] = [5, 1, 8, 7, 3, 8, 2, 8, 6];

#[test]
fn ranks_and_workers_cover_each_sample_once() {
    let server = Server::of(unlabelled(&COUNTS));
    let cache = folder();
    let images: Arc<dyn Dataset> = Arc::new(train(&settings(&cache), &pattern(&server, 9)));
    for (ranks, workers, window) in [
        (1, 1, 1),
        (1, 3, 2),
        (2, 1, 3),
        (2, 2, 0),
        (3, 2, 4),
        (4, 3, 9),
        (6, 1, 100),
    ] {
        // 48 samples in batches of 12.
        for epoch in [0, 1] {
            let part = |rank| {
                let loader = loader(&images, config(12, workers, window));
                let loader = loader.for_part(rank, ranks).unwrap();
                let batches = loader
                    .epoch(epoch, 0)
                    .map(|batch| batch.unwrap().indices.clone());
                batches.collect::<Vec<_>>()
            };
            let parts: Vec<_> = (0..ranks).map(part).collect();
            let mut all: Vec<u32> = parts.iter().flatten().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(
                all,
                (0..48).collect::<Vec<_>>(),
                "{ranks} {workers} {window}"
            );
            // The ranks' parts in their order are the batches of one process.
            let whole = loader(&images, config(12, 1, window));
            for (number, batch) in whole.epoch(epoch, 0).enumerate() {
                let together = parts.iter().flat_map(|part| part[number].clone());
                assert_eq!(batch.unwrap().indices, together.collect::<Vec<_>>());
            }
        }
    }
    // All of it came once.
    assert_eq!(server.transfers(".tar").len(), 9);
}

#[test]
fn an_epoch_goes_on_at_any_batch_with_the_same_bytes() {
    let server = Server::of(unlabelled(&COUNTS));
    let run = |position: Position, count: usize| {
        let cache = folder();
        let images: Arc<dyn Dataset> = Arc::new(train(&settings(&cache), &pattern(&server, 9)));
        let config = LoaderConfig {
            drop_last: false,
            ..config(7, 2, 2)
        };
        let loader = loader(&images, config);
        let mut position = position;
        let mut seen = Vec::new();
        while seen.len() < count {
            for batch in loader.epoch(position.epoch, position.next_batch) {
                let batch = batch.unwrap();
                seen.push((
                    position,
                    batch.indices.clone(),
                    batch.views().unwrap().to_vec(),
                ));
                position.advance(loader.batches_per_epoch());
                if seen.len() == count {
                    break;
                }
            }
        }
        seen
    };
    let whole = run(Position::default(), 14);
    for stop in [1, 4, 6, 7, 9] {
        let stored = serde_json::to_string(&whole[stop].0).unwrap();
        let position: Position = serde_json::from_str(&stored).unwrap();
        // From an empty cache, as on another machine.
        assert_eq!(run(position, 14 - stop), whole[stop..], "{stored}");
    }
}

#[test]
fn a_window_is_drawn_from_its_shards_alone_and_shards_from_all() {
    let server = Server::of(unlabelled(&[4; 8]));
    let cache = folder();
    let images: Arc<dyn Dataset> = Arc::new(train(&settings(&cache), &pattern(&server, 8)));
    let loader = loader(&images, config(8, 1, 2));
    let windows = |epoch| {
        let shards = |batch: Batch| {
            batch
                .indices
                .iter()
                .map(|index| index / 4)
                .collect::<BTreeSet<_>>()
        };
        loader
            .epoch(epoch, 0)
            .map(|batch| shards(batch.unwrap()))
            .collect::<Vec<_>>()
    };
    let first = windows(0);
    assert!(first.iter().all(|window| window.len() == 2), "{first:?}");
    assert_eq!(first.iter().flatten().collect::<BTreeSet<_>>().len(), 8);
    assert_ne!(first, windows(1));
}

#[test]
fn local_shards_have_the_same_order_when_they_are_asked_for_windows() {
    let files = unlabelled(&COUNTS);
    let local = folder();
    std::fs::create_dir(local.path().join("set")).unwrap();
    for (name, content) in &files {
        std::fs::write(local.path().join(name), content).unwrap();
    }
    let local = eqco_data::open(local.path().join("set").to_str().unwrap(), Split::Train).unwrap();
    let server = Server::of(files);
    let cache = folder();
    let remote: Arc<dyn Dataset> = Arc::new(train(&settings(&cache), &pattern(&server, 9)));
    let order = |images: &Arc<dyn Dataset>, window| {
        let loader = loader(images, config(5, 1, window));
        loader
            .epoch(3, 0)
            .flat_map(|batch| batch.unwrap().indices.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(order(&local, 3), order(&remote, 3));
    assert_ne!(order(&local, 0), order(&local, 3));
    // A part of a set has parts of its shards.
    let few = [&local, &remote].map(|images| order(&limited(Arc::clone(images), 20), 2));
    assert_eq!(few[0], few[1]);
    assert_eq!(few[0].iter().collect::<BTreeSet<_>>().len(), 20);
}

#[test]
fn a_shard_that_cannot_be_had_ends_the_epoch_and_is_no_bad_image() {
    let gone = Arc::new(AtomicBool::new(false));
    let is_gone = Arc::clone(&gone);
    let server = Server::start(unlabelled(&[4; 6]), move |_, _| {
        match is_gone.load(Ordering::Relaxed) {
            true => Deed::status("503 Service Unavailable"),
            false => Deed::default(),
        }
    });
    let cache = folder();
    // What has been counted has to be fetched again: there is room for two shards.
    let settings = with_room_for(2, &settings(&cache));
    let images: Arc<dyn Dataset> = Arc::new(train(&settings, &pattern(&server, 6)));
    let config = LoaderConfig {
        max_bad_share: 1.0,
        ..config(4, 2, 1)
    };
    let loader = loader(&images, config);
    gone.store(true, Ordering::Relaxed);
    let outcomes: Vec<_> = loader.epoch(0, 0).collect();
    let text = told(outcomes.last().unwrap().as_ref().expect_err("an error"));
    assert!(
        text.contains("/set/train-000") && text.contains("gave up after 4 tries"),
        "{text}"
    );
    assert_eq!(loader.skipped(), 0);
    // When the server is back, so is the epoch.
    gone.store(false, Ordering::Relaxed);
    assert_eq!(
        loader
            .epoch(0, 0)
            .map(|batch| batch.unwrap().len())
            .sum::<usize>(),
        24
    );
}

#[test]
fn an_epoch_that_is_left_does_not_wait_for_a_silent_server() {
    let opened = Arc::new(AtomicBool::new(false));
    let is_opened = Arc::clone(&opened);
    let server = Server::start(unlabelled(&[4; 6]), move |_, _| {
        match is_opened.load(Ordering::Relaxed) {
            true => Deed {
                hangs: true,
                ..Deed::cut_after(100)
            },
            false => Deed::default(),
        }
    });
    let cache = folder();
    let settings = RemoteSettings {
        patience: Duration::from_secs(3600),
        ..with_room_for(2, &settings(&cache))
    };
    let images: Arc<dyn Dataset> = Arc::new(train(&settings, &pattern(&server, 6)));
    let loader = loader(&images, config(4, 2, 1));
    opened.store(true, Ordering::Relaxed);
    let before = server.asked().len();
    // At once, and when somebody waits.
    drop(loader.epoch(0, 0));
    let epoch = loader.epoch(1, 0);
    wait_until(|| server.asked().len() > before);
    drop(epoch);
}

#[test]
fn a_window_that_the_cache_cannot_hold_is_refused() {
    let server = Server::of(unlabelled(&[4; 6]));
    let cache = folder();
    let settings = with_room_for(3, &settings(&cache));
    let images: Arc<dyn Dataset> = Arc::new(train(&settings, &pattern(&server, 6)));
    let refused = try_loader(&images, config(4, 2, 0)).err().unwrap();
    let text = told(&refused);
    assert!(
        text.contains("shard_window: expected at most 3, as many shards as"),
        "{text}"
    );
    assert!(
        text.contains("got 6") && text.contains("EQCO_SHARD_CACHE_GIB"),
        "{text}"
    );
}
