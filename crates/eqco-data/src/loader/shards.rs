//! Epochs over data sets whose images lie in shards, a few of which are read at a time.

use super::LoaderConfig;
use super::sampler::{ShardOrder, epoch_order, shard_order};
use crate::dataset::{Reader, Reading, Shards};
use crate::{DataError, Dataset};

/// Shards whose samples are mixed where shards have to be fetched: with the usual thousand images in each, a batch is drawn from
/// 16,000.
const FETCHED_WINDOW: usize = 16;

/// In natural order, where a batch may need some small ones.
const NATURAL_WINDOW: usize = 4;

/// The shards of a data set, and how many of them are mixed.
pub(super) struct ShardReader {
    shards: Shards,
    /// `None` for the natural order.
    window: Option<usize>,
}

/// An epoch that is being read.
pub(super) struct EpochReading {
    reading: Reading,
    order: ShardOrder,
}

impl ShardReader {
    /// `None` where the order needs no shards.
    ///
    /// # Errors
    /// [`DataError::InvalidSetting`] if a window's shards cannot be at hand at the same time.
    pub(super) fn new(
        dataset: &dyn Dataset,
        config: &LoaderConfig,
    ) -> Result<Option<Self>, DataError> {
        let Some(shards) = dataset.shards() else {
            return Ok(None);
        };
        let window = match (config.shuffle, config.shard_window, &shards.ahead) {
            (false, ..) => None,
            (true, 0, Some(_)) => Some(FETCHED_WINDOW),
            (true, 0, None) => return Ok(None),
            (true, window, _) => Some(window),
        };
        let Some(ahead) = &shards.ahead else {
            return Ok(window.is_some().then_some(Self { shards, window }));
        };
        let needed = window.unwrap_or(1).min(shards.runs.len());
        if needed > ahead.most() {
            let expected = format!(
                "at most {}, as many shards as their cache has room for",
                ahead.most()
            );
            return Err(DataError::setting("shard_window", expected, needed));
        }
        Ok(Some(Self { shards, window }))
    }

    /// The order of an epoch.
    pub(super) fn order(&self, seed: u64, epoch: u64) -> ShardOrder {
        shard_order(&self.shards.runs, self.window, seed, epoch)
    }

    /// The order of the samples, and what is told to a data set that fetches, until it is dropped.
    pub(super) fn begin(
        &self,
        seed: u64,
        epoch: u64,
        first_position: usize,
    ) -> (Vec<u32>, Option<EpochReading>) {
        let mut order = self.order(seed, epoch);
        let samples = std::mem::take(&mut order.samples);
        let reading = self.shards.ahead.as_ref().map(|ahead| {
            let mut list = order.shards.clone();
            // While the last window is read, the next epoch's first one is fetched.
            let window = self.window.unwrap_or(NATURAL_WINDOW);
            let runs = &self.shards.runs;
            let next = epoch_order(runs.len() as u32, self.window.is_some(), seed, epoch + 1);
            let next = next.iter().take(window);
            list.extend(next.map(|&run| runs[run as usize].shard));
            let reading = ahead.begin(list, 2 * window);
            reading.advance(order.shards_done(first_position));
            EpochReading { reading, order }
        });
        (samples, reading)
    }
}

impl EpochReading {
    /// For whom threads read.
    pub(super) fn reader(&self) -> Reader {
        self.reading.reader()
    }

    /// Says that all positions before `position` are done with.
    pub(super) fn advance(&self, position: usize) {
        self.reading.advance(self.order.shards_done(position));
    }
}
