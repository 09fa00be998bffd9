//! The images of remote shards as a data set.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock};

use super::download::Shard;
use super::failure::Failure;
use super::fetcher::Fetcher;
use super::shard_index;
use crate::dataset::archive::{Entry, Index, UNLABELLED, image_bytes};
use crate::dataset::{Dataset, Run, Shards};
use crate::{DataError, Image, decode};

/// Images in shards on a server or in an object store, read from a cache of whole shards.
///
/// Made by [`super::Remote::open`] and [`crate::open_as`]. Any number of threads read at once; whoever needs a shard that is not
/// there waits for it alone. Of every shard that has been seen, an index stays in memory, some 50 bytes an image.
pub struct RemoteImages {
    name: String,
    class_names: Vec<String>,
    part: Part,
}

/// The shards of a split.
pub(super) struct Part {
    fetcher: Fetcher,
    indices: Vec<Slot>,
    /// How many images there are up to the end of each shard, once that is known.
    ends: Vec<u64>,
}

/// The index of a shard, when it has been seen.
#[derive(Default)]
struct Slot {
    index: OnceLock<Index>,
    /// Held while it is made.
    making: Mutex<()>,
}

impl Part {
    pub(super) fn new(fetcher: Fetcher) -> Self {
        let indices = fetcher.shards().iter().map(|_| Slot::default());
        Self {
            indices: indices.collect(),
            ends: Vec::new(),
            fetcher,
        }
    }

    pub(super) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    pub(super) fn shards(&self) -> &[Shard] {
        self.fetcher.shards()
    }

    /// The index of a shard: the one in memory, or the one that was kept, or that of the shard itself, which is fetched.
    pub(super) fn index(&self, number: usize) -> Result<&Index, DataError> {
        let slot = &self.indices[number];
        if let Some(index) = slot.index.get() {
            return Ok(index);
        }
        // What is in there is whole whenever the lock is free, even after a panic elsewhere.
        let _making = slot.making.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(index) = slot.index.get() {
            return Ok(index);
        }
        let shard = &self.shards()[number];
        let cache = &self.fetcher.downloader().cache;
        let index = match shard_index::stored(cache, &shard.key) {
            Some(index) => index,
            None => {
                let held = self.fetcher.get(number);
                let index = held.and_then(|held| shard_index::of(cache, &shard.key, &held));
                index.map_err(|failure| self.error(number, failure))?
            }
        };
        self.check(number, &index)
            .map_err(|failure| self.error(number, failure))?;
        Ok(slot.index.get_or_init(|| index))
    }

    /// Whether the index of a shard is in memory, or has been kept.
    pub(super) fn is_known(&self, number: usize) -> bool {
        let cache = &self.fetcher.downloader().cache;
        let path = cache.index_path(&self.shards()[number].key);
        self.indices[number].index.get().is_some() || path.is_file()
    }

    /// Whether a shard has as many images as were counted.
    fn check(&self, number: usize, index: &Index) -> Result<(), Failure> {
        let Some(counted) = self.count(number) else {
            return Ok(());
        };
        if index.len() as u64 == counted {
            return Ok(());
        }
        let reason = format!(
            "expected {counted} images, as an index beside the shards says, found {}",
            index.len()
        );
        Err(Failure::lasting(reason).hint("write the index (index.json) anew, or take it away, so that all shards are counted once"))
    }

    /// The number of images of a shard, if they are counted.
    fn count(&self, number: usize) -> Option<u64> {
        let end = self.ends.get(number)?;
        let begin = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(end - begin)
    }

    /// Sets the number of images of every shard.
    pub(super) fn set_counts(&mut self, counts: impl Iterator<Item = u32>) {
        let ends = counts.scan(0, |end, count| {
            *end += u64::from(count);
            Some(*end)
        });
        self.ends = ends.collect();
    }

    /// An error with the address of its shard.
    pub(super) fn error(&self, number: usize, failure: Failure) -> DataError {
        super::error(&self.shards()[number].address.text, failure)
    }

    /// The shard of an image, and its number there.
    fn place(&self, index: usize) -> (usize, usize) {
        let shard = self.ends.partition_point(|&end| end <= index as u64);
        let begin = shard.checked_sub(1).map_or(0, |before| self.ends[before]);
        (shard, index - begin as usize)
    }

    /// What is known of an image whose shard has been seen.
    fn known(&self, index: usize) -> Option<Entry<'_>> {
        let (shard, place) = self.place(index);
        Some(self.indices.get(shard)?.index.get()?.entry(place))
    }
}

impl RemoteImages {
    /// Images of a part whose shards are all counted. Where there are names of classes, all of its shards must have been seen.
    pub(super) fn new(name: &str, class_names: Vec<String>, part: Part) -> Self {
        Self {
            name: name.to_owned(),
            class_names,
            part,
        }
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        let (shard, place) = self.part.place(index);
        let held = self.part.fetcher.get(shard);
        let held = held.map_err(|failure| self.part.error(shard, failure))?;
        let entry = self.part.index(shard)?.entry(place);
        if self.class_names.is_empty() && entry.label != UNLABELLED {
            let reason = format!(
                "expected no label, as in the first shard, found one for `{}`",
                entry.name
            );
            let failure = Failure::lasting(reason).hint("put labels into all shards or into none");
            return Err(self.part.error(shard, failure));
        }
        image_bytes(&held.file, entry, || self.describe(index))
    }
}

impl Dataset for RemoteImages {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.part.ends.last().map_or(0, |&end| end as usize)
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        if self.class_names.is_empty() {
            return None;
        }
        let label = self.part.known(index)?.label;
        (label != UNLABELLED).then_some(u32::from(label))
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        decode::decode(&self.bytes(index)?, &self.describe(index))
    }

    fn encoded(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, DataError> {
        self.bytes(index).map(|bytes| Some(bytes.into()))
    }

    fn describe(&self, index: usize) -> String {
        let (shard, place) = self.part.place(index);
        let address = &self.part.shards()[shard].address.text;
        match self.part.known(index) {
            Some(entry) => format!("{address}: {}", entry.name),
            None => format!("{address}: image {place}"),
        }
    }

    fn shards(&self) -> Option<Shards> {
        let counts = (0..self.part.ends.len()).filter_map(|number| self.part.count(number));
        let runs = (0..).zip(counts).map(|(shard, images)| Run {
            shard,
            images: images as u32,
        });
        Some(Shards {
            runs: runs.filter(|run| run.images > 0).collect(),
            ahead: Some(Arc::clone(self.part.fetcher.ahead())),
        })
    }
}
