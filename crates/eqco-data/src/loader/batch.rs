//! Batches and the memory that they give back.

use std::fmt;
use std::sync::{Arc, Mutex};

/// A batch of views. Its memory goes back to the loader when it is dropped.
pub struct Batch {
    /// Index of each sample in the data set, `[N]`.
    pub indices: Vec<u32>,
    /// Label of each sample, `[N]`; empty if the data set is unlabelled.
    pub labels: Vec<u32>,
    /// One buffer per recipe, RGB bytes `[N, S, S, 3]`.
    pub views: Vec<Vec<u8>>,
    pool: Arc<BatchPool>,
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
}

impl fmt::Debug for Batch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Batch")
            .field("indices", &self.indices)
            .field("labels", &self.labels)
            .field(
                "view_bytes",
                &self.views.iter().map(Vec::len).collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.pool.give_back(Buffers {
            indices: std::mem::take(&mut self.indices),
            labels: std::mem::take(&mut self.labels),
            views: std::mem::take(&mut self.views),
        });
    }
}

/// The memory of a batch without its meaning.
#[derive(Debug, Default)]
struct Buffers {
    indices: Vec<u32>,
    labels: Vec<u32>,
    views: Vec<Vec<u8>>,
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

    /// An empty batch with one view buffer of each length in bytes; their content is arbitrary.
    pub(super) fn take(self: &Arc<Self>, view_bytes: impl Iterator<Item = usize>) -> Batch {
        let recycled = self.free.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let mut buffers = recycled.unwrap_or_default();
        buffers.indices.clear();
        buffers.labels.clear();
        let mut views = buffers.views.into_iter();
        let views = view_bytes.map(|bytes| {
            let mut view = views.next().unwrap_or_default();
            view.resize(bytes, 0);
            view
        });
        Batch {
            views: views.collect(),
            indices: buffers.indices,
            labels: buffers.labels,
            pool: Arc::clone(self),
        }
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

    #[test]
    fn memory_is_used_again() {
        let pool = BatchPool::new(1);
        let first = pool.take([300, 100].into_iter());
        let addresses = [first.views[0].as_ptr(), first.views[1].as_ptr()];
        drop(first);
        let second = pool.take([200, 100].into_iter());
        assert_eq!(
            [second.views[0].as_ptr(), second.views[1].as_ptr()],
            addresses
        );
        assert_eq!([second.views[0].len(), second.views[1].len()], [200, 100]);
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_capacity() {
        let pool = BatchPool::new(2);
        let batches: Vec<_> = (0..5).map(|_| pool.take([10].into_iter())).collect();
        drop(batches);
        assert_eq!(pool.free.lock().unwrap().len(), 2);
    }
}
