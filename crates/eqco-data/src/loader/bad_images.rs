//! The images that could not be read, and when there are too many.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use crate::DataError;

/// How many unreadable images an error message names.
const EXAMPLES: usize = 5;

/// Counts distinct unreadable images over all epochs.
#[derive(Debug)]
pub(super) struct BadImages {
    total: usize,
    max_share: f64,
    /// Reason by index.
    reasons: Mutex<BTreeMap<u32, String>>,
}

impl BadImages {
    pub(super) fn new(total: usize, max_share: f64) -> Self {
        Self {
            total,
            max_share,
            reasons: Mutex::default(),
        }
    }

    /// Number of distinct unreadable images so far.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Notes images that were found before, in another process.
    pub(super) fn resume(&self, indices: &[u32]) {
        let mut reasons = self.lock();
        for index in indices {
            let reason = || format!("image {index}: unreadable before the run was resumed");
            reasons.entry(*index).or_insert_with(reason);
        }
    }

    /// Notes an unreadable image, warns the first time, and fails once the share is exceeded.
    pub(super) fn note(&self, index: u32, error: &DataError) -> Result<(), DataError> {
        let mut reasons = self.lock();
        reasons.entry(index).or_insert_with(|| {
            let reason = with_causes(error);
            tracing::warn!("skipped an unreadable image: {reason}");
            reason
        });
        if reasons.len() as f64 > self.max_share * self.total as f64 {
            return Err(self.too_many(&reasons));
        }
        Ok(())
    }

    /// The error for a data set in which no readable image is left.
    pub(super) fn nothing_left(&self) -> DataError {
        self.too_many(&self.lock())
    }

    fn too_many(&self, reasons: &BTreeMap<u32, String>) -> DataError {
        DataError::TooManyBadImages {
            bad: reasons.len(),
            total: self.total,
            max_bad_share: self.max_share,
            examples: reasons.values().take(EXAMPLES).cloned().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, String>> {
        // The map is consistent whenever the lock is free, even after a panic elsewhere.
        self.reasons.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// An error and its causes in one line.
fn with_causes(error: &DataError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
