//! Some images of a data set.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Dataset, Run, Shards};
use crate::{DataError, Image};

/// A part of another data set.
struct Subset {
    whole: Arc<dyn Dataset>,
    name: String,
    indices: Vec<u32>,
}

/// The images of `whole` at `indices`, each below its length, in this order and with their labels; results call the part
/// `name`.
pub fn subset(whole: Arc<dyn Dataset>, name: String, indices: Vec<u32>) -> Arc<dyn Dataset> {
    Arc::new(Subset {
        whole,
        name,
        indices,
    })
}

impl Subset {
    fn index(&self, index: usize) -> usize {
        self.indices[index] as usize
    }
}

impl Dataset for Subset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn class_names(&self) -> &[String] {
        self.whole.class_names()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.whole.label(self.index(index))
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        self.whole.image(self.index(index))
    }

    fn encoded(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, DataError> {
        self.whole.encoded(self.index(index))
    }

    fn describe(&self, index: usize) -> String {
        self.whole.describe(self.index(index))
    }

    fn shards(&self) -> Option<Shards> {
        let whole = self.whole.shards()?;
        let ends: Vec<u64> = whole
            .runs
            .iter()
            .scan(0, |end, run| {
                *end += u64::from(run.images);
                Some(*end)
            })
            .collect();
        let shard_of = |&index: &u32| {
            let run = ends.partition_point(|&end| end <= u64::from(index));
            whole.runs[run].shard
        };
        let mut runs: Vec<Run> = Vec::new();
        for shard in self.indices.iter().map(shard_of) {
            match runs.last_mut() {
                Some(run) if run.shard == shard => run.images += 1,
                _ => runs.push(Run { shard, images: 1 }),
            }
        }
        Some(Shards { runs, ..whole })
    }
}
