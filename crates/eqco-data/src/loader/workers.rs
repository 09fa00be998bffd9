//! The threads that decode, augment and assemble batches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::batch::{Batch, BatchPool};
use super::sampler::{batch_positions, part_of, substitutes};
use super::{BadImages, LoaderConfig, Part};
use crate::random::{Purpose, stream};
use crate::recipe::Recipe;
use crate::{DataError, Dataset, Image};

/// What the loader keeps from epoch to epoch.
pub(super) struct Shared {
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) views: Vec<Recipe>,
    pub(super) config: LoaderConfig,
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
    /// Set when nobody wants the rest of the epoch.
    pub(super) stopped: AtomicBool,
}

/// A batch with its number; `None` if the epoch was stopped halfway through it.
pub(super) type Finished = (u64, Result<Option<Batch>, DataError>);

/// A worker's life: takes batch numbers, sends batches, until there are no more numbers or nobody
/// listens. A panic (in a data set of somebody else's, say) becomes an error.
pub(super) fn work(plan: &EpochPlan, numbers: &Receiver<u64>, finished: &Sender<Finished>) {
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
        let image_bytes: Vec<usize> = shared
            .views
            .iter()
            .map(|view| view.image_size() * view.image_size() * 3)
            .collect();
        let mut batch = shared
            .pool
            .take(image_bytes.iter().map(|bytes| positions.len() * bytes));
        for (row, position) in positions.enumerate() {
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(None);
            }
            // Decoded once, for all views.
            let (index, image) = self.readable_image(position)?;
            for (view, recipe) in shared.views.iter().enumerate() {
                let seed = shared.config.seed;
                let mut rng = stream(seed, Purpose::View, self.epoch, index, view as u32);
                let bytes = image_bytes[view];
                let out = &mut batch.views[view][row * bytes..(row + 1) * bytes];
                recipe.apply(&image, &mut rng, out);
            }
            batch.indices.push(index);
            batch.labels.extend(shared.dataset.label(index as usize));
        }
        Ok(Some(batch))
    }

    /// The image at a position, or at the first of its substitutes that can be read.
    fn readable_image(&self, position: usize) -> Result<(u32, Image), DataError> {
        let shared = &*self.shared;
        for candidate in substitutes(position, shared.config.batch_size, self.order.len()) {
            let index = self.order[candidate];
            match shared.dataset.image(index as usize) {
                Ok(image) => return Ok((index, image)),
                Err(error) => shared.bad_images.note(index, &error)?,
            }
        }
        Err(shared.bad_images.nothing_left())
    }
}
