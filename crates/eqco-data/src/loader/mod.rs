//! Deterministic batches from worker threads.
//!
//! Worker threads assemble whole batches and the iterator hands them out in order. What is in a
//! batch depends on the seed, the epoch and the samples alone: the order is a function of (seed,
//! epoch), the pixels of a view are a function of (seed, epoch, sample, view), and so neither the
//! number of threads nor a restart in the middle of an epoch changes a single byte.
//!
//! Memory is bounded: at most `workers + 1` batches exist beside those that the caller holds, and
//! their buffers are used again.

mod bad_images;
mod batch;
mod sampler;
mod shards;
mod workers;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::{Deserialize, Serialize};

use crate::recipe::Recipe;
use crate::{DataError, Dataset};
use bad_images::BadImages;
use batch::BatchPool;
pub use batch::{Batch, Content, DecodedImages};
use shards::{EpochReading, ShardReader};
use workers::{EpochPlan, Finished, Making, Shared};

/// Settings of a loader. Unknown keys are errors; missing ones take the default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderConfig {
    /// Samples per batch, at least one. Default 128.
    pub batch_size: usize,
    /// Worker threads; 0 (the default) means one for each processor core.
    pub workers: usize,
    /// Seed of order and augmentation. Default 0.
    pub seed: u64,
    /// Leave out the last batch of an epoch if it is smaller than the others. Default true.
    pub drop_last: bool,
    /// Another random order each epoch (default) instead of the data set's order.
    pub shuffle: bool,
    /// With `shuffle`, the number of shards whose samples are mixed at a time, where a data set has shards: an epoch takes
    /// them in a random order. 0 (the default) means all samples at once where they are at hand, and 16 shards where each has to
    /// be fetched.
    pub shard_window: usize,
    /// Share of the data set's images that may be unreadable, 0 to 1, before the loader gives up.
    /// Default 0.01.
    pub max_bad_share: f64,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch_size: 128,
            workers: 0,
            seed: 0,
            drop_last: true,
            shuffle: true,
            shard_window: 0,
            max_bad_share: 0.01,
        }
    }
}

/// Makes epochs of batches out of a data set.
///
/// An unreadable image is skipped: another sample of the same epoch, a batch further on in the
/// order, stands in for it, so that every batch is full. Each is named once by a `tracing` warning
/// and counted by [`Loader::skipped`]; too many of them are an error.
pub struct Loader {
    shared: Arc<Shared>,
    workers: usize,
    part: Part,
}

/// Which consecutive part of every batch is made, of how many.
#[derive(Clone, Copy, Debug)]
struct Part {
    index: usize,
    count: usize,
}

impl Loader {
    /// A loader of finished views. Checks the settings. `views` are one or two recipes; each image is decoded once for all.
    ///
    /// # Errors
    /// [`DataError::InvalidSetting`] if a setting is out of range, or if `drop_last` leaves no
    /// batch at all.
    pub fn new(
        dataset: Arc<dyn Dataset>,
        views: Vec<Recipe>,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        Self::making(dataset, Making::Views(views), config)
    }

    /// The same loader up to the last step: its batches carry the decoded images and how their views are to be made, in the
    /// same order, of the same samples and from the same random numbers ([`Content::Decoded`]).
    ///
    /// A batch holds all of its images at their full size then, at most 4 GiB.
    ///
    /// # Errors
    /// Those of [`Loader::new`], and [`DataError::InvalidSetting`] for the recipe `eval`, which has nothing to draw. An
    /// epoch ends with that error too where a batch has more than 4 GiB.
    pub fn of_decoded(
        dataset: Arc<dyn Dataset>,
        views: &[Recipe],
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        let chain = |recipe: &Recipe| {
            recipe.chain().copied().ok_or_else(|| {
                DataError::setting("recipe", "one that draws its views at random", "eval")
            })
        };
        let chains = views.iter().map(chain).collect::<Result<_, _>>()?;
        Self::making(dataset, Making::Decoded(chains), config)
    }

    fn making(
        dataset: Arc<dyn Dataset>,
        making: Making,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        let len = dataset.len();
        if len == 0 || u32::try_from(len).is_err() {
            return Err(DataError::setting(
                "data set",
                "1 to 4,294,967,295 images",
                len,
            ));
        }
        if !(1..=2).contains(&making.recipes()) {
            return Err(DataError::setting(
                "views",
                "one or two recipes",
                making.recipes(),
            ));
        }
        if config.batch_size == 0 {
            return Err(DataError::setting("batch_size", "at least 1", 0));
        }
        if config.drop_last && config.batch_size > len {
            let expected = format!("at most {len}, the number of images (or drop_last = false)");
            return Err(DataError::setting(
                "batch_size",
                expected,
                config.batch_size,
            ));
        }
        if !(0.0..=1.0).contains(&config.max_bad_share) {
            return Err(DataError::setting(
                "max_bad_share",
                "0 to 1",
                config.max_bad_share,
            ));
        }
        let shards = ShardReader::new(&*dataset, &config)?;
        let workers = match config.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let bad_images = BadImages::new(len, config.max_bad_share);
        let pool = BatchPool::new(workers + 2);
        let shared = Shared {
            dataset,
            making,
            config,
            shards,
            bad_images,
            pool,
        };
        Ok(Self {
            shared: Arc::new(shared),
            workers,
            part: Part { index: 0, count: 1 },
        })
    }

    /// The same loader, which of every batch makes part `index` of `count` alone: consecutive samples, the same and with
    /// the same pixels as in the whole batch. For processes that share a batch out among them.
    ///
    /// # Errors
    /// [`DataError::InvalidSetting`] if there is no such part, or a batch cannot be cut into so many equal ones.
    pub fn for_part(mut self, index: usize, count: usize) -> Result<Self, DataError> {
        if index >= count {
            let expected = format!("a number below {count}, the number of parts");
            return Err(DataError::setting("part", expected, index));
        }
        let config = &self.shared.config;
        if !config.batch_size.is_multiple_of(count) || !config.drop_last && count > 1 {
            let expected =
                format!("a multiple of {count}, the number of parts, and drop_last = true");
            return Err(DataError::setting(
                "batch_size",
                expected,
                config.batch_size,
            ));
        }
        self.part = Part { index, count };
        Ok(self)
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.shared.dataset
    }

    /// The settings.
    pub fn config(&self) -> &LoaderConfig {
        &self.shared.config
    }

    /// Batches in an epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        let config = &self.shared.config;
        sampler::batch_count(
            self.shared.dataset.len(),
            config.batch_size,
            config.drop_last,
        )
    }

    /// Number of distinct unreadable images so far. Batches that are made but not handed out yet count already:
    /// [`Batch::skipped`] is exact.
    pub fn skipped(&self) -> usize {
        self.shared.bad_images.count()
    }

    /// Takes up the unreadable images that an earlier part of the run has met, from the `skipped` of all of its batches: they
    /// count, and are not warned of again.
    pub fn resume_skipped(&self, indices: &[u32]) {
        self.shared.bad_images.resume(indices);
    }

    /// The sample at each position of an epoch, as it is planned: unreadable ones not replaced, all parts together. Batch b has
    /// those from b times the batch size on.
    pub fn planned_order(&self, epoch: u64) -> Vec<u32> {
        let LoaderConfig { shuffle, seed, .. } = self.shared.config;
        match &self.shared.shards {
            Some(shards) => shards.order(seed, epoch).samples,
            None => sampler::epoch_order(self.shared.dataset.len() as u32, shuffle, seed, epoch),
        }
    }

    /// Starts the workers on an epoch, at batch `first_batch`; the batches from there on are the
    /// same as those of a whole epoch.
    pub fn epoch(&self, epoch: u64, first_batch: u64) -> Epoch {
        let shared = Arc::clone(&self.shared);
        let end = self.batches_per_epoch();
        let remaining = first_batch.min(end)..end;
        let (order, reading) = match &shared.shards {
            Some(shards) => {
                let first_position = remaining.start as usize * shared.config.batch_size;
                shards.begin(shared.config.seed, epoch, first_position)
            }
            None => (self.planned_order(epoch), None),
        };
        let plan = EpochPlan {
            shared,
            epoch,
            order,
            part: self.part,
            reader: reading.as_ref().map(EpochReading::reader),
            stopped: AtomicBool::new(false),
        };
        Epoch::start(Arc::new(plan), remaining, self.workers, reading)
    }
}

/// The batches of an epoch in order. Dropping it early stops the workers and waits for them.
///
/// After an error there are no more batches.
pub struct Epoch {
    plan: Arc<EpochPlan>,
    /// Batches not handed out yet.
    remaining: Range<u64>,
    /// Batches not given to the workers yet.
    unassigned: Range<u64>,
    numbers: Option<Sender<u64>>,
    finished: Receiver<Finished>,
    /// Batches that were finished before their turn.
    early: BTreeMap<u64, Result<Option<Batch>, DataError>>,
    threads: Vec<JoinHandle<()>>,
    start_failure: Option<DataError>,
    /// Where the data set fetches, what it is to fetch.
    reading: Option<EpochReading>,
}

impl Epoch {
    /// Starts as many threads as there is work for, with one batch each and one in reserve.
    fn start(
        plan: Arc<EpochPlan>,
        remaining: Range<u64>,
        workers: usize,
        reading: Option<EpochReading>,
    ) -> Self {
        // Neither channel needs a bound: there are never more than `workers + 1` numbers about.
        let (numbers, take_number) = unbounded();
        let (send_finished, finished) = unbounded();
        let mut threads = Vec::new();
        let mut start_failure = None;
        for worker in 0..workers.min((remaining.end - remaining.start) as usize) {
            let (plan, take, send) = (plan.clone(), take_number.clone(), send_finished.clone());
            let builder = thread::Builder::new().name(format!("loader-{worker}"));
            match builder.spawn(move || workers::work(&plan, &take, &send)) {
                Ok(thread) => threads.push(thread),
                // Fewer threads give the same batches; none at all is a failure.
                Err(error) if threads.is_empty() => {
                    start_failure = Some(DataError::Worker {
                        reason: error.to_string(),
                    });
                }
                Err(_) => break,
            }
        }
        let mut epoch = Self {
            plan,
            unassigned: remaining.clone(),
            remaining,
            numbers: Some(numbers),
            finished,
            early: BTreeMap::new(),
            threads,
            start_failure,
            reading,
        };
        for _ in 0..=epoch.threads.len() {
            epoch.assign_one();
        }
        epoch
    }

    /// Gives the workers the next batch to make.
    fn assign_one(&mut self) {
        if let (Some(numbers), Some(number)) = (&self.numbers, self.unassigned.next()) {
            // Fails only when all workers are gone, which the receiving end reports.
            let _ = numbers.send(number);
        }
    }

    /// Waits for one particular batch.
    fn wait_for(&mut self, wanted: u64) -> Result<Batch, DataError> {
        if let Some(error) = self.start_failure.take() {
            return Err(error);
        }
        let ended = || DataError::Worker {
            reason: "it ended early".to_owned(),
        };
        loop {
            if let Some(batch) = self.early.remove(&wanted) {
                return batch?.ok_or_else(ended);
            }
            let (number, batch) = self.finished.recv().map_err(|_| ended())?;
            self.early.insert(number, batch);
        }
    }

    /// Tells the workers to stop and waits until they have.
    fn stop(&mut self) {
        self.plan.stopped.store(true, Ordering::Relaxed);
        self.remaining = 0..0;
        self.numbers = None;
        // Threads that wait for a shard are let go.
        self.reading = None;
        for thread in self.threads.drain(..) {
            // Panics were caught inside the thread and reported as errors.
            let _ = thread.join();
        }
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let wanted = self.remaining.next()?;
        let batch = self.wait_for(wanted);
        match batch {
            Ok(_) => {
                self.assign_one();
                if let Some(reading) = &self.reading {
                    // Batches are handed out in order: all before this one are finished, too.
                    let batch_size = self.plan.shared.config.batch_size;
                    reading.advance((wanted as usize + 1) * batch_size);
                }
            }
            Err(_) => self.stop(),
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.remaining.end - self.remaining.start) as usize;
        (left, Some(left))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.stop();
    }
}
