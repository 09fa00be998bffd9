//! The cache: never larger than it may be, shared, and filled ahead of time.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::server::Deed;
use super::*;

/// The most bytes that a cache had while `work` was done.
fn most_while(cache: &Path, work: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                // While files come and go, a list of them is of no moment that ever was.
                let lock =
                    File::create(cache.join(".lock")).and_then(|file| file.lock().map(|()| file));
                most = most.max(bytes_in(cache));
                drop(lock);
                thread::yield_now();
            }
            most
        });
        work();
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    })
}

#[test]
fn the_cache_never_has_more_than_its_room() {
    let files = unlabelled(&[8; 12]);
    let size = files[0].1.len() as u64;
    let server = Server::of(files);
    for (room, window) in [(1, 1), (2, 1), (3, 2), (5, 2), (5, 4)] {
        let cache = folder();
        let settings = RemoteSettings {
            cache_bytes: room * size + size / 2,
            ..settings(&cache)
        };
        let most = most_while(&settings.cache, || {
            let images: Arc<dyn Dataset> = Arc::new(train(&settings, &pattern(&server, 12)));
            let loader = loader(&images, config(8, 2, window));
            for epoch in 0..2 {
                let mut seen: Vec<u32> = loader
                    .epoch(epoch, 0)
                    .flat_map(|batch| batch.unwrap().indices.clone())
                    .collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..96).collect::<Vec<_>>());
            }
        });
        assert!(
            most <= settings.cache_bytes,
            "{most} of {}",
            settings.cache_bytes
        );
        assert!(most >= size, "{most}");
    }
}

#[test]
fn shards_are_read_in_any_order_from_a_small_cache() {
    let files = unlabelled(&[3; 7]);
    let size = files[0].1.len() as u64;
    let server = Server::of(files);
    let cache = folder();
    let settings = RemoteSettings {
        cache_bytes: 2 * size,
        ..settings(&cache)
    };
    let images = train(&settings, &pattern(&server, 7));
    thread::scope(|scope| {
        for begin in 0..3 {
            let images = &images;
            scope.spawn(move || {
                for turn in 0..42 {
                    let number = (begin + turn * 8) % 21;
                    assert_eq!(images.encoded(number).unwrap().unwrap(), png(number as u32));
                }
            });
        }
    });
    assert!(bytes_in(&settings.cache) <= settings.cache_bytes);
}

#[test]
fn programs_that_share_a_cache_fetch_each_shard_once() {
    let server = Server::of(unlabelled(&[6; 8]));
    let cache = folder();
    let settings = settings(&cache);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| expect_all(&train(&settings, &pattern(&server, 8)), 48));
        }
    });
    for number in 0..8 {
        let transfers = server.transfers(&format!("train-{number:04}.tar"));
        assert_eq!(transfers.len(), 1, "{transfers:?}");
    }
    // A later one fetches nothing.
    expect_all(&train(&settings, &pattern(&server, 8)), 48);
    assert_eq!(server.transfers(".tar").len(), 8);
}

#[test]
fn one_data_set_does_not_take_the_shards_that_another_reads() {
    let server = Server::of(unlabelled(&[4; 4]));
    let cache = folder();
    let settings = with_room_for(3, &settings(&cache));
    let [one, other] = [0; 2].map(|_| train(&settings, &pattern(&server, 4)));
    let most = most_while(&settings.cache, || {
        for number in [0, 4, 0, 8, 12, 0, 4] {
            assert_eq!(one.encoded(number).unwrap().unwrap(), png(number as u32));
            assert_eq!(
                other.encoded(15 - number).unwrap().unwrap(),
                png(15 - number as u32)
            );
        }
    });
    assert!(most <= settings.cache_bytes);
}

#[test]
fn the_next_window_comes_while_one_is_read() {
    let server = Server::of(unlabelled(&[4; 8]));
    let cache = folder();
    let counted = settings(&cache);
    // Counted once, with a cache that is emptied then.
    drop(train(&counted, &pattern(&server, 8)));
    for entry in counted.cache.read_dir().unwrap().flatten() {
        if entry.path().extension().is_some_and(|end| end == "tar") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let before = server.transfers(".tar").len();
    let settings = with_room_for(6, &counted);
    let images: Arc<dyn Dataset> = Arc::new(train(&settings, &pattern(&server, 8)));
    let loader = loader(&images, config(4, 1, 2));
    let mut epoch = loader.epoch(0, 0);
    let fetched = || server.transfers(".tar").len() - before;
    epoch.next().unwrap().unwrap();
    // Two shards of this window, two of the next, and no more.
    wait_until(|| fetched() == 4);
    epoch.next().unwrap().unwrap();
    wait_until(|| fetched() == 6);
    assert_eq!(epoch.count(), 6);
    // The next epoch's first window is asked for, too, of which the small cache may have lost some.
    assert!((8..=10).contains(&fetched()), "{}", fetched());
}

#[test]
fn a_slow_shard_holds_up_nobody_else() {
    let release: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    let wait = Arc::clone(&release);
    let server = Server::start(unlabelled(&[4; 3]), move |asked, _| {
        if asked.method == "GET" && asked.path.ends_with("0001.tar") {
            let mut released = wait.0.lock().unwrap();
            while !*released {
                released = wait.1.wait(released).unwrap();
            }
        }
        Deed::default()
    });
    let cache = folder();
    let settings = settings(&cache);
    let slow = thread::scope(|scope| {
        let slow = scope.spawn(|| train(&settings, &pattern(&server, 3)));
        wait_until(|| server.transfers("0001.tar").len() == 1);
        let quick = format!("{}/set/train-{{0000,0002}}.tar", server.address);
        let images = train(&settings, &quick);
        assert_eq!(images.encoded(7).unwrap().unwrap(), png(11));
        *release.0.lock().unwrap() = true;
        release.1.notify_all();
        slow.join().unwrap()
    });
    expect_all(&slow, 12);
}

#[test]
fn what_lies_in_the_cache_is_not_believed() {
    let server = Server::of(unlabelled(&[5, 5]));
    let cache = folder();
    let settings = settings(&cache);
    drop(train(&settings, &pattern(&server, 2)));
    let mut damaged = 0;
    for entry in settings.cache.read_dir().unwrap().flatten() {
        let path = entry.path();
        let content = std::fs::read(&path).unwrap();
        if path
            .extension()
            .is_some_and(|end| end == "tar" || end == "eqco-index")
        {
            std::fs::write(&path, &content[..content.len() / 2]).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 4);
    expect_all(&train(&settings, &pattern(&server, 2)), 10);
    assert_eq!(server.transfers(".tar").len(), 4);
}

#[test]
fn a_cache_that_cannot_be_written_is_explained() {
    let server = Server::of(unlabelled(&[5]));
    let cache = folder();
    std::fs::write(cache.path().join("shards"), "a file").unwrap();
    let text = failure(&settings(&cache), &pattern(&server, 1));
    assert!(
        text.contains("the cache cannot be ") && text.contains("EQCO_SHARD_CACHE"),
        "{text}"
    );
}
