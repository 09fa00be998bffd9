//! WebDataset's shards on web servers (`http://`, `https://`) and in object stores (`s3://`), through the crate `object_store`.
//!
//! A shard is fetched whole into a cache on disk, resumed where a connection broke, and then read in place as a local one is.
//! The loader takes shards in a random order and mixes the samples of a few of them; while these are read, the next ones come.

mod address;
mod cache;
mod connector;
mod download;
mod failure;
mod fetcher;
mod images;
mod network;
mod objects;
mod sample_counts;
mod settings;
mod shard_index;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};

use crate::dataset::archive::Index;
use crate::dataset::shards::{ClassNames, by_name, check_one_split, is_labelled};
use crate::{DataError, Split};
use address::Address;
use cache::Key;
use download::{Downloader, Shard};
use failure::Failure;
use fetcher::Fetcher;
use images::Part;
use network::Network;

pub use images::RemoteImages;
pub use settings::{RemoteSettings, S3Settings};

/// So many shards are asked for their sizes at a time.
const MOST_QUESTIONS: usize = 16;

/// Servers and stores of shards.
pub struct Remote {
    settings: RemoteSettings,
}

impl Remote {
    /// Servers and stores that are asked with these settings.
    pub fn new(settings: RemoteSettings) -> Self {
        Self { settings }
    }

    /// Opens a split of the shards that an address or a pattern like `s3://BUCKET/{train-{0000..1023},val-{00..63}}.tar` names.
    /// Splits are told by words in names and samples are read as in [`crate::Format::Shards`]; names of classes come from
    /// `classes.txt` or `classes.json` beside the shards or in the folder above.
    ///
    /// The number of samples of each shard comes from `index.json` beside unlabelled shards, `{"shardlist": [{"url",
    /// "nsamples"}, ...]}`. Without one, and for labels, all shards are read once; what is found stays in the cache.
    ///
    /// # Errors
    /// [`DataError::Remote`] if an address is none, something cannot be had or is no shard, or the cache cannot be used;
    /// [`DataError::Layout`] and [`DataError::Labels`] as for local shards. No error holds credentials.
    pub fn open(&self, source: &str, split: Split) -> Result<RemoteImages, DataError> {
        let addresses = address::shards(source).map_err(|reason| {
            let failure = Failure::lasting(reason);
            let shown = source.split("://").next().unwrap_or_default();
            error(&format!("--data {shown}://…"), failure.hint(
                "give https://HOST/PATH/train-{000000..000123}.tar or s3://BUCKET/PREFIX/train-{000000..000123}.tar; credentials \
                 belong into AWS's environment variables",
            ))
        })?;
        let paths = addresses.iter().map(|address| PathBuf::from(&address.text));
        let (train, test) = by_name(Path::new(source), paths.collect())?;
        let of = |paths: &[PathBuf]| -> Vec<Address> {
            let ours = addresses
                .iter()
                .filter(|address| paths.contains(&PathBuf::from(&address.text)));
            ours.cloned().collect()
        };
        let (chosen, train) = match split {
            Split::Train => (of(&train), Vec::new()),
            Split::Test => (of(&test), of(&train)),
        };
        if chosen.is_empty() {
            let found = match split {
                Split::Train => "none for training",
                Split::Test => "none for testing",
            };
            let expected = "shards with `train`, `val` or `test` in their names";
            return Err(DataError::layout(source, expected, found));
        }
        let part = self.part(source, chosen)?;
        self.images(source, part, train)
    }

    /// Counts what is in the shards, and finds the names of their classes.
    fn images(
        &self,
        source: &str,
        mut part: Part,
        train: Vec<Address>,
    ) -> Result<RemoteImages, DataError> {
        let first = Path::new(&part.shards()[0].address.text).to_path_buf();
        check_one_split([part.index(0)?], &first)?;
        if !is_labelled([part.index(0)?], &first)?
            && let Some(counts) = self.counted(&part)?
        {
            part.set_counts(counts.into_iter());
            return images_of(source, Vec::new(), part);
        }
        let indices = all_indices(&part)?;
        check_one_split(indices.iter().copied(), &first)?;
        let labelled = is_labelled(indices.iter().copied(), &first)?;
        let used = class_count(&indices);
        let counts: Vec<u32> = indices.iter().map(|index| index.len() as u32).collect();
        part.set_counts(counts.into_iter());
        if !labelled {
            return images_of(source, Vec::new(), part);
        }
        let names = match self.class_names(&part)? {
            Some(names) => names.for_labels(used)?,
            None if train.is_empty() => ClassNames::numbers(used),
            None => {
                let train = self.part(source, train)?;
                ClassNames::of_training(used, class_count(&all_indices(&train)?), &first)?
            }
        };
        images_of(source, names, part)
    }

    /// Asks how large all shards are.
    fn part(&self, source: &str, addresses: Vec<Address>) -> Result<Part, DataError> {
        let network = Network::start().map_err(|failure| error(source, failure))?;
        let downloader = Downloader::new(&self.settings);
        let asking = downloader.clone();
        let shards = network.run(async move {
            let asking = &asking;
            let shard = async |address: Address| {
                let identity = asking.with_tries(|| asking.objects.head(&address)).await;
                let identity = identity.map_err(|failure| (address.text.clone(), failure))?;
                Ok::<_, (String, Failure)>(Shard {
                    key: Key::new(&address, &identity),
                    identity,
                    address,
                })
            };
            let shards = stream::iter(addresses).map(shard).buffered(MOST_QUESTIONS);
            Ok(shards.try_collect::<Vec<_>>().await)
        });
        let shards = shards.map_err(|failure| error(source, failure))?;
        let shards = shards.map_err(|(address, failure)| error(&address, failure))?;
        self.check_room(&shards)?;
        Ok(Part::new(Fetcher::new(shards, downloader, network)))
    }

    fn check_room(&self, shards: &[Shard]) -> Result<(), DataError> {
        let largest = shards.iter().max_by_key(|shard| shard.identity.size);
        let room = self.settings.cache_bytes;
        match largest.filter(|shard| shard.identity.size > room) {
            None => Ok(()),
            Some(shard) => {
                let size = shard.identity.size;
                let reason =
                    format!("{size} bytes, more than the {room} that the cache has room for");
                let failure = Failure::lasting(reason)
                    .hint("give the cache more room with EQCO_SHARD_CACHE_GIB");
                Err(error(&shard.address.text, failure))
            }
        }
    }

    /// The number of samples of each shard, if a file beside them tells it.
    fn counted(&self, part: &Part) -> Result<Option<Vec<u32>>, DataError> {
        let addresses: Vec<&Address> = part.shards().iter().map(|shard| &shard.address).collect();
        for name in sample_counts::names(&addresses) {
            let Some((address, text)) = small_file(part, &name, 0, sample_counts::MOST_BYTES)?
            else {
                continue;
            };
            match sample_counts::parse(&text, &addresses) {
                Ok(counts) => return Ok(Some(counts)),
                Err(reason) => tracing::warn!("{address} is of no use: {reason}"),
            }
        }
        Ok(None)
    }

    fn class_names(&self, part: &Part) -> Result<Option<ClassNames>, DataError> {
        for levels in [0, 1] {
            for name in ["classes.txt", "classes.json"] {
                if let Some((address, text)) =
                    small_file(part, name, levels, ClassNames::MOST_BYTES)?
                {
                    return ClassNames::parse(Path::new(&address), &text).map(Some);
                }
            }
        }
        Ok(None)
    }
}

fn images_of(source: &str, names: Vec<String>, part: Part) -> Result<RemoteImages, DataError> {
    let images = RemoteImages::new(source, names, part);
    match crate::Dataset::len(&images) {
        0 => Err(error(
            source,
            Failure::lasting("no image (.jpg, .jpeg, .png or .webp) in any shard"),
        )),
        _ => Ok(images),
    }
}

/// A file beside the shards or in the folder above, with its address.
fn small_file(
    part: &Part,
    name: &str,
    levels: usize,
    most: u64,
) -> Result<Option<(String, Vec<u8>)>, DataError> {
    let first = &part.shards()[0].address;
    let Some(address) = first.beside(name, levels) else {
        return Ok(None);
    };
    let (text, downloader) = (address.text.clone(), part.fetcher().downloader().clone());
    let file = part.fetcher().network().run(async move {
        let ask = || sample_counts::small_file(&downloader.objects, &address, most);
        downloader.with_tries(ask).await
    });
    let file = file.map_err(|failure| error(&text, failure))?;
    Ok(file.map(|file| (text, file)))
}

/// The indices of all shards, each of which is read unless its index was kept.
fn all_indices(part: &Part) -> Result<Vec<&Index>, DataError> {
    let count = part.shards().len();
    let unknown: Vec<u32> = (0..count)
        .filter(|&number| !part.is_known(number))
        .map(|number| number as u32)
        .collect();
    let bytes: u64 = unknown
        .iter()
        .map(|&number| part.shards()[number as usize].identity.size)
        .sum();
    let progress = progress_bar(bytes);
    if !unknown.is_empty() {
        tracing::info!(
            "counting the samples of {} shards ({} MB), once: all of them have to be read for it",
            unknown.len(),
            bytes / 1_000_000
        );
    }
    let depth = unknown.len();
    let reading = part
        .fetcher()
        .ahead()
        .begin(unknown.clone(), depth.min(MOST_QUESTIONS));
    for (done, &number) in unknown.iter().enumerate() {
        progress.set_message(format!("{} of {} shards", done + 1, unknown.len()));
        part.index(number as usize)?;
        progress.inc(part.shards()[number as usize].identity.size);
        reading.advance(done + 1);
    }
    progress.finish_and_clear();
    (0..count).map(|number| part.index(number)).collect()
}

fn class_count(indices: &[&Index]) -> usize {
    indices
        .iter()
        .map(|index| index.class_count())
        .max()
        .unwrap_or(0)
}

fn error(address: &str, failure: Failure) -> DataError {
    DataError::Remote {
        address: address.to_owned(),
        reason: failure.reason,
        hint: failure.hint,
    }
}

/// Vanishes when standard error is not a terminal.
fn progress_bar(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() || bytes == 0 {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {msg}";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
