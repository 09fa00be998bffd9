//! Shards on servers: the same images as from disk, whatever the server does, and every failure explained.

mod cache;
mod order;
mod server;
mod stores;
mod transfers;

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::remote::{Remote, RemoteImages, RemoteSettings, S3Settings};
use eqco_data::{DataError, Dataset, Split};
use image::{ImageBuffer, ImageFormat, Rgb};
use tar::{Builder, Header};
use tempfile::TempDir;

use server::Server;

/// A picture that tells its number.
fn png(number: u32) -> Vec<u8> {
    let picture =
        ImageBuffer::from_pixel(3, 2, Rgb([(number % 256) as u8, (number / 256) as u8, 7]));
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// An archive of these files.
fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, &**content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A shard of these pictures, with the label that `label` gives.
fn shard(numbers: impl Iterator<Item = u32>, label: impl Fn(u32) -> Option<u32>) -> Vec<u8> {
    let samples = numbers.flat_map(|number| {
        let image = (format!("{number:05}.png"), png(number));
        let label =
            label(number).map(|label| (format!("{number:05}.cls"), label.to_string().into()));
        [Some(image), label].into_iter().flatten()
    });
    archive(&samples.collect::<Vec<_>>())
}

/// Shards `set/train-0000.tar` ... with so many pictures each, numbered through, without labels.
fn unlabelled(counts: &[u32]) -> Vec<(String, Vec<u8>)> {
    let mut begin = 0;
    let shards = counts.iter().enumerate().map(|(number, count)| {
        let numbers = begin..begin + count;
        begin = numbers.end;
        (
            format!("set/train-{number:04}.tar"),
            shard(numbers, |_| None),
        )
    });
    shards.collect()
}

/// What [`unlabelled`] shards are called on a server.
fn pattern(server: &Server, count: usize) -> String {
    format!(
        "{}/set/train-{{0000..{:04}}}.tar",
        server.address,
        count - 1
    )
}

/// Quick to give up, with a cache that holds everything.
fn settings(cache: &TempDir) -> RemoteSettings {
    RemoteSettings {
        cache: cache.path().join("shards"),
        cache_bytes: 64 << 20,
        tries: 4,
        first_pause: Duration::from_millis(1),
        patience: Duration::from_secs(30),
        s3: S3Settings::default(),
    }
}

/// The same with a cache for so many shards of four pictures.
fn with_room_for(shards: u64, settings: &RemoteSettings) -> RemoteSettings {
    RemoteSettings {
        cache_bytes: shards * unlabelled(&[4])[0].1.len() as u64,
        ..settings.clone()
    }
}

/// A loader of one view, so that a batch tells its samples.
fn try_loader(images: &Arc<dyn Dataset>, config: LoaderConfig) -> Result<Loader, DataError> {
    let recipe = Recipe::new(RecipeConfig::new(RecipeName::Eval, 8)).unwrap();
    Loader::new(Arc::clone(images), vec![recipe], config)
}

fn loader(images: &Arc<dyn Dataset>, config: LoaderConfig) -> Loader {
    try_loader(images, config).unwrap()
}

fn config(batch_size: usize, workers: usize, shard_window: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size,
        workers,
        shard_window,
        seed: 11,
        max_bad_share: 0.0,
        ..LoaderConfig::default()
    }
}

/// Waits until something is so, which it must become.
fn wait_until(what: impl Fn() -> bool) {
    for _ in 0..3000 {
        if what() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("it never came about");
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(settings: &RemoteSettings, source: &str, split: Split) -> Result<RemoteImages, DataError> {
    Remote::new(settings.clone()).open(source, split)
}

fn train(settings: &RemoteSettings, source: &str) -> RemoteImages {
    open(settings, source, Split::Train).unwrap_or_else(|error| panic!("{}", told(&error)))
}

/// An error with its hint.
fn told(error: &DataError) -> String {
    format!("{error} | {}", error.hint().unwrap_or_default())
}

fn failure(settings: &RemoteSettings, source: &str) -> String {
    told(
        &open(settings, source, Split::Train)
            .err()
            .expect("must not open"),
    )
}

/// All images are the numbered ones, byte for byte.
fn expect_all(images: &dyn Dataset, count: u32) {
    assert_eq!(images.len(), count as usize);
    for number in 0..count {
        assert_eq!(
            images.encoded(number as usize).unwrap().unwrap(),
            png(number),
            "{number}"
        );
    }
}

/// Bytes of shards in a cache, and of what is coming.
fn bytes_in(cache: &Path) -> u64 {
    let files = cache.read_dir().into_iter().flatten().flatten();
    let shards = files.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let counts = name.ends_with(".tar") || name.ends_with(".part");
        // It may have gone since it was listed.
        counts.then(|| entry.metadata().map_or(0, |about| about.len()))
    });
    shards.sum()
}
