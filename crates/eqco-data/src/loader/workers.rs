//! The threads that decode, augment and assemble batches.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};
use rand_chacha::ChaCha8Rng;

use super::batch::{Batch, BatchPool, DecodedImages};
use super::sampler::{batch_positions, part_of, substitutes};
use super::{BadImages, LoaderConfig, Part, ShardReader};
use crate::augment::Region;
use crate::dataset::Reader;
use crate::random::{Purpose, stream};
use crate::recipe::{Chain, Recipe};
use crate::{DataError, Dataset, Image, decode};

/// More decoded bytes in a batch are refused: they are as many as the images of a folder happen to have, and some batches are
/// in memory at a time.
const MOST_DECODED_BYTES: usize = u32::MAX as usize;

/// What workers make of an image, once for every recipe.
pub(super) enum Making {
    /// The view.
    Views(Vec<Recipe>),
    /// A plan of the view, beside the image itself.
    Decoded(Vec<Chain>),
}

impl Making {
    pub(super) fn recipes(&self) -> usize {
        match self {
            Self::Views(recipes) => recipes.len(),
            Self::Decoded(chains) => chains.len(),
        }
    }
}

/// What the loader keeps from epoch to epoch.
pub(super) struct Shared {
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) making: Making,
    pub(super) config: LoaderConfig,
    /// Where shards are read in turn.
    pub(super) shards: Option<ShardReader>,
    pub(super) bad_images: BadImages,
    pub(super) pool: Arc<BatchPool>,
}

/// One epoch as the workers see it.
pub(super) struct EpochPlan {
    pub(super) shared: Arc<Shared>,
    pub(super) epoch: u64,
    /// Sample index at each position.
    pub(super) order: Vec<u32>,
    /// Which part of every batch is made.
    pub(super) part: Part,
    /// Where the data set fetches, for whom.
    pub(super) reader: Option<Reader>,
    /// Set when nobody wants the rest of the epoch.
    pub(super) stopped: AtomicBool,
}

/// A batch with its number; `None` if the epoch was stopped halfway through it.
pub(super) type Finished = (u64, Result<Option<Batch>, DataError>);

/// A worker's life: takes batch numbers, sends batches, until there are no more numbers or nobody
/// listens. A panic (in a data set of somebody else's, say) becomes an error.
pub(super) fn work(plan: &EpochPlan, numbers: &Receiver<u64>, finished: &Sender<Finished>) {
    if let Some(reader) = plan.reader {
        reader.enter();
    }
    for number in numbers {
        let batch = catch_unwind(AssertUnwindSafe(|| plan.batch(number))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(DataError::Worker {
                reason: text.unwrap_or_else(|| "it panicked".to_owned()),
            })
        });
        if finished.send((number, batch)).is_err() {
            break;
        }
    }
}

impl EpochPlan {
    /// Assembles one batch.
    fn batch(&self, number: u64) -> Result<Option<Batch>, DataError> {
        let shared = &*self.shared;
        let positions = batch_positions(number, shared.config.batch_size, self.order.len());
        let positions = part_of(positions, self.part);
        let mut buffers = shared.pool.take(shared.making.recipes());
        if let Making::Views(recipes) = &shared.making {
            let count = positions.len();
            buffers.size_views(recipes.iter().map(|recipe| count * bytes_of_a_view(recipe)));
        }
        for (row, position) in positions.enumerate() {
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let skipped = &mut buffers.skipped;
            let index = match &shared.making {
                Making::Views(recipes) => self.readable(position, skipped, |index| {
                    self.add_views(recipes, index, row, &mut buffers.views)
                })?,
                Making::Decoded(chains) => {
                    let mut image = None;
                    let index = self.readable(position, skipped, |index| {
                        image = Some(shared.dataset.image(index as usize)?);
                        Ok(())
                    })?;
                    if let Some(image) = &image {
                        self.add_decoded(chains, (index, image), &mut buffers.decoded)?;
                    }
                    index
                }
            };
            buffers.indices.push(index);
            buffers.labels.extend(shared.dataset.label(index as usize));
        }
        Ok(Some(match shared.making {
            Making::Views(_) => buffers.into_views(&shared.pool),
            Making::Decoded(_) => buffers.into_decoded(&shared.pool),
        }))
    }

    /// The random numbers of one view of a sample.
    fn view_stream(&self, index: u32, view: usize) -> ChaCha8Rng {
        let seed = self.shared.config.seed;
        stream(seed, Purpose::View, self.epoch, index, view as u32)
    }

    /// Makes the views of one image, decoded once for all of them, and of a file no more than they need.
    fn add_views(
        &self,
        recipes: &[Recipe],
        index: u32,
        row: usize,
        views: &mut [Vec<u8>],
    ) -> Result<(), DataError> {
        let dataset = &*self.shared.dataset;
        let outs = recipes.iter().zip(views).map(|(recipe, view)| {
            let bytes = bytes_of_a_view(recipe);
            (recipe, &mut view[row * bytes..(row + 1) * bytes])
        });
        let streams = (0..).map(|view| self.view_stream(index, view));
        let Some(file) = dataset.encoded(index as usize)? else {
            let image = dataset.image(index as usize)?;
            for ((recipe, out), mut stream) in outs.zip(streams) {
                recipe.apply(&image, &mut stream, out);
            }
            return Ok(());
        };
        let name = dataset.describe(index as usize);
        let size = decode::size(&file, &name)?;
        let planned: Vec<_> = outs
            .zip(streams)
            .map(|((recipe, out), mut stream)| (recipe.draw(size, &mut stream), recipe, out))
            .collect();
        let needed = planned.iter().map(|(plan, ..)| plan.needed(size));
        let needed = needed.reduce(Region::around).unwrap_or(Region::of(size));
        let image = decode::decode_part(&file, &name, needed, PIXELS.take())?;
        for (plan, recipe, out) in planned {
            plan.render_part(&image, needed, recipe.image_size(), out);
        }
        PIXELS.set(image.into_pixels());
        Ok(())
    }

    fn add_decoded(
        &self,
        chains: &[Chain],
        (index, image): (u32, &Image),
        decoded: &mut DecodedImages,
    ) -> Result<(), DataError> {
        check_bytes(decoded.pixels.len(), image.pixels().len())?;
        let size = (image.width(), image.height());
        for (view, (chain, plans)) in chains.iter().zip(&mut decoded.plans).enumerate() {
            plans.push(chain.draw(size, &mut self.view_stream(index, view)));
        }
        decoded.pixels.extend_from_slice(image.pixels());
        decoded.sizes.push(size);
        Ok(())
    }

    /// The index at a position, or at the first of its substitutes, whose image `read` can read; those before it go to
    /// `skipped`.
    fn readable(
        &self,
        position: usize,
        skipped: &mut Vec<u32>,
        mut read: impl FnMut(u32) -> Result<(), DataError>,
    ) -> Result<u32, DataError> {
        let shared = &*self.shared;
        for candidate in substitutes(position, shared.config.batch_size, self.order.len()) {
            let index = self.order[candidate];
            match read(index) {
                Ok(()) => return Ok(index),
                Err(error) if error.is_of_source() => return Err(error),
                Err(error) => {
                    shared.bad_images.note(index, &error)?;
                    skipped.push(index);
                }
            }
        }
        Err(shared.bad_images.nothing_left())
    }
}

thread_local! {
    /// Memory for the pixels of an image while its views are made: fresh pages would cost as much as a view.
    static PIXELS: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn bytes_of_a_view(recipe: &Recipe) -> usize {
    recipe.image_size() * recipe.image_size() * 3
}

/// Whether an image has room in a batch that holds so many decoded bytes.
fn check_bytes(held: usize, image: usize) -> Result<(), DataError> {
    let bytes = held.saturating_add(image);
    if bytes <= MOST_DECODED_BYTES {
        return Ok(());
    }
    Err(DataError::setting(
        "batch_size",
        format!("decoded images of at most {MOST_DECODED_BYTES} bytes in a batch"),
        bytes,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_beyond_its_bytes_is_an_error_that_says_what_to_change() {
        assert!(check_bytes(u32::MAX as usize - 3, 3).is_ok());
        let error = check_bytes(u32::MAX as usize - 3, 4).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("at most 4294967295 bytes") && message.contains("4294967296"));
        assert!(error.hint().is_some_and(|hint| hint.contains("batch size")));
        assert!(check_bytes(3, usize::MAX).is_err());
    }
}
