//! Batches and the memory that they give back.

use std::sync::{Arc, Mutex};
use std::{fmt, mem};

use crate::{DataError, ViewPlan};

/// A batch. Its memory goes back to the loader when it is dropped.
pub struct Batch {
    /// Index of each sample in the data set, `[N]`.
    pub indices: Vec<u32>,
    /// Label of each sample, `[N]`; empty if the data set is unlabelled.
    pub labels: Vec<u32>,
    /// Indices of unreadable images that stood where others stand now; an image may be there twice.
    pub skipped: Vec<u32>,
    /// Its views, finished or to be made.
    pub content: Content,
    pool: Arc<BatchPool>,
}

/// What a batch carries: all batches of a loader the same.
pub enum Content {
    /// Finished views: one buffer per recipe, RGB bytes `[N, S, S, 3]`.
    Views(Vec<Vec<u8>>),
    /// Whole images, and how each view is to be made of them.
    Decoded(DecodedImages),
}

/// The images of a batch as they are, of any sizes, and the views to make of them.
#[derive(Debug, Default)]
pub struct DecodedImages {
    /// One image after the other without gaps, RGB, `[height, width, 3]` each.
    pub pixels: Vec<u8>,
    /// Width and height of each, `[N]`; neither is zero.
    pub sizes: Vec<(usize, usize)>,
    /// One list per recipe, `[N]` each: the view of each image.
    pub plans: Vec<Vec<ViewPlan>>,
}

impl Batch {
    /// Number of samples, N.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether the batch has no sample; the loader never gives out such a batch.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The finished views, one buffer per recipe, RGB bytes `[N, S, S, 3]`.
    ///
    /// # Errors
    /// [`DataError::InvalidSetting`] if the batch is one of [`super::Loader::of_decoded`].
    pub fn views(&self) -> Result<&[Vec<u8>], DataError> {
        match &self.content {
            Content::Views(views) => Ok(views),
            Content::Decoded(_) => Err(DataError::setting(
                "content of the batch",
                "finished views, as `Loader::new` gives them",
                "decoded images",
            )),
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<usize> = match &self.content {
            Content::Views(views) => views.iter().map(Vec::len).collect(),
            Content::Decoded(images) => vec![images.pixels.len()],
        };
        formatter
            .debug_struct("Batch")
            .field("indices", &self.indices)
            .field("labels", &self.labels)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let content = mem::replace(&mut self.content, Content::Views(Vec::new()));
        let (views, decoded) = match content {
            Content::Views(views) => (views, DecodedImages::default()),
            Content::Decoded(images) => (Vec::new(), images),
        };
        self.pool.give_back(Buffers {
            indices: mem::take(&mut self.indices),
            labels: mem::take(&mut self.labels),
            skipped: mem::take(&mut self.skipped),
            views,
            decoded,
        });
    }
}

/// The memory of a batch while it is filled. A loader uses `views` or `decoded`, never both.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) indices: Vec<u32>,
    pub(super) labels: Vec<u32>,
    pub(super) skipped: Vec<u32>,
    pub(super) views: Vec<Vec<u8>>,
    pub(super) decoded: DecodedImages,
}

impl Buffers {
    /// Makes room for finished views of these lengths in bytes; their content is arbitrary.
    pub(super) fn size_views(&mut self, bytes: impl ExactSizeIterator<Item = usize>) {
        self.views.resize_with(bytes.len(), Vec::new);
        for (view, bytes) in self.views.iter_mut().zip(bytes) {
            view.resize(bytes, 0);
        }
    }

    /// Forgets what they held, but for the content of `views`.
    fn clear(&mut self, recipes: usize) {
        self.indices.clear();
        self.labels.clear();
        self.skipped.clear();
        self.decoded.pixels.clear();
        self.decoded.sizes.clear();
        self.decoded.plans.resize_with(recipes, Vec::new);
        self.decoded.plans.iter_mut().for_each(Vec::clear);
    }

    /// A batch of finished views.
    pub(super) fn into_views(self, pool: &Arc<BatchPool>) -> Batch {
        Batch {
            indices: self.indices,
            labels: self.labels,
            skipped: self.skipped,
            content: Content::Views(self.views),
            pool: Arc::clone(pool),
        }
    }

    /// A batch of decoded images.
    pub(super) fn into_decoded(self, pool: &Arc<BatchPool>) -> Batch {
        Batch {
            indices: self.indices,
            labels: self.labels,
            skipped: self.skipped,
            content: Content::Decoded(self.decoded),
            pool: Arc::clone(pool),
        }
    }
}

/// Buffers that wait to be used again, never more than `capacity`.
#[derive(Debug)]
pub(super) struct BatchPool {
    capacity: usize,
    free: Mutex<Vec<Buffers>>,
}

impl BatchPool {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            free: Mutex::default(),
        })
    }

    /// Buffers without content for a batch of so many recipes.
    pub(super) fn take(&self, recipes: usize) -> Buffers {
        let recycled = self.free.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let mut buffers = recycled.unwrap_or_default();
        buffers.clear(recipes);
        buffers
    }

    fn give_back(&self, buffers: Buffers) {
        // Called from `drop`, possibly while a thread panics: a poisoned lock is no reason to abort.
        let mut free = self.free.lock().unwrap_or_else(|e| e.into_inner());
        if free.len() < self.capacity {
            free.push(buffers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(pool: &Arc<BatchPool>, bytes: [usize; 2]) -> Batch {
        let mut buffers = pool.take(2);
        buffers.size_views(bytes.into_iter());
        buffers.into_views(pool)
    }

    #[test]
    fn memory_is_used_again() {
        let pool = BatchPool::new(1);
        let addresses = |batch: &Batch| {
            let views = batch.views().unwrap();
            [views[0].as_ptr(), views[1].as_ptr()]
        };
        let first = views(&pool, [300, 100]);
        let before = addresses(&first);
        drop(first);
        let second = views(&pool, [200, 100]);
        assert_eq!(addresses(&second), before);
        let lengths: Vec<_> = second.views().unwrap().iter().map(Vec::len).collect();
        assert_eq!(lengths, [200, 100]);
    }

    #[test]
    fn memory_of_decoded_images_is_used_again_and_comes_empty() {
        let pool = BatchPool::new(1);
        let mut buffers = pool.take(2);
        buffers.decoded.pixels.resize(300, 7);
        buffers.decoded.sizes.push((10, 10));
        let address = buffers.decoded.pixels.as_ptr();
        drop(buffers.into_decoded(&pool));
        let again = pool.take(2);
        assert_eq!(again.decoded.pixels.as_ptr(), address);
        assert!(again.decoded.pixels.is_empty() && again.decoded.sizes.is_empty());
        assert_eq!(again.decoded.plans.len(), 2);
        let error = again.into_decoded(&pool).views().unwrap_err().to_string();
        assert!(error.contains("finished views"), "{error}");
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_capacity() {
        let pool = BatchPool::new(2);
        let batches: Vec<_> = (0..5).map(|_| views(&pool, [10, 10])).collect();
        drop(batches);
        assert_eq!(pool.free.lock().unwrap().len(), 2);
    }
}
