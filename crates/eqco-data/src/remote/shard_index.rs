//! Where the images of one shard lie, kept beside the cached shards and after them.

use std::path::Path;

use super::cache::{Held, Key, ShardCache};
use super::failure::Failure;
use crate::DataError;
use crate::dataset::archive::{Index, index_in, keep_index};
use crate::dataset::shards::add_samples;

/// What the stored index is of.
fn contents(key: &Key) -> String {
    format!("samples of {key:?}")
}

/// The index of a shard that was here before.
pub(super) fn stored(cache: &ShardCache, key: &Key) -> Option<Index> {
    index_in(&cache.index_path(key), &contents(key))
}

/// The index of a shard that is here.
pub(super) fn of(cache: &ShardCache, key: &Key, held: &Held) -> Result<Index, Failure> {
    if let Some(index) = stored(cache, key) {
        return Ok(index);
    }
    let mut index = Index::default();
    add_samples(&mut index, &held.file).map_err(|error| unfit(&error))?;
    index.end_archive(held.file.stamp());
    keep(&cache.index_path(key), &contents(key), &index);
    Ok(index)
}

fn keep(path: &Path, contents: &str, index: &Index) {
    if let Err(error) = keep_index(path, contents, index) {
        let path = path.display();
        tracing::warn!(
            "the index of a shard cannot be kept, so that it will be made again: {path}: {error}"
        );
    }
}

/// What is wrong with a shard, without the name that it has in the cache.
fn unfit(error: &DataError) -> Failure {
    let reason = match error {
        DataError::Archive {
            expected, found, ..
        }
        | DataError::Labels {
            expected, found, ..
        } => {
            format!("expected {expected}, found {found}")
        }
        error => error.to_string(),
    };
    Failure::lasting(reason).hint(error.hint().unwrap_or_default())
}
