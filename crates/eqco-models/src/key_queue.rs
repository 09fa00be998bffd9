//! The queue of keys that MoCo takes its negatives from.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::error::{ModelError, check_range};
use crate::ops::access::copy_into;
use crate::params::normal;
use crate::saved_state::{count_from_state, count_to_tensor, misfit, tensor_from_state};

/// The last K keys, as a ring of rows that is overwritten in place (He et al. 2020, section 3.2).
///
/// K need not be a multiple of the batch size. Until K keys have come, the remaining rows are random unit vectors, as in
/// MoCo's code.
#[derive(Debug)]
pub struct KeyQueue {
    keys: Tensor,
    cursor: usize,
    filled: usize,
}

/// The rows that the next keys go to, as they are before.
#[derive(Debug)]
pub struct Overwritten {
    /// From the cursor on to the end of the ring, and from its beginning on.
    parts: Vec<Tensor>,
    cursor: usize,
    filled: usize,
}

impl KeyQueue {
    /// A queue of `capacity` (K) keys of `dimension` (D) components, filled with unit vectors that depend on `seed` alone.
    ///
    /// # Errors
    /// When `capacity` or `dimension` is 0, or the device cannot allocate.
    pub fn new(
        capacity: usize,
        dimension: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        check_range(
            "queue capacity",
            "at least 1",
            capacity as f64,
            capacity > 0,
        )?;
        check_range(
            "embedding dimension",
            "at least 1",
            dimension as f64,
            dimension > 0,
        )?;
        if capacity
            .checked_mul(dimension)
            .is_none_or(|count| count > isize::MAX as usize / size_of::<f32>())
        {
            let problem = format!(
                "a queue of {capacity} keys of {dimension} components exceeds the address space"
            );
            return Err(ModelError::Conflict { problem });
        }
        let keys = Tensor::from_vec(
            random_unit_vectors(capacity, dimension, seed),
            (capacity, dimension),
            device,
        )?;
        Ok(Self {
            keys,
            cursor: 0,
            filled: 0,
        })
    }

    /// All K rows `[K,D]`, newest and oldest in ring order. The next [`KeyQueue::enqueue`] overwrites this tensor in place:
    /// copy it to keep the values.
    pub fn keys(&self) -> &Tensor {
        &self.keys
    }

    /// K.
    pub fn capacity(&self) -> usize {
        self.keys.dims()[0]
    }

    /// Row that the next key goes to.
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// How many of the rows hold real keys.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Appends `keys` `[N,D]`, f32, in their order, over the oldest. Of more than K keys only the last K stay.
    ///
    /// # Errors
    /// When the shape or element type does not fit; the queue is unchanged then.
    pub fn enqueue(&mut self, keys: &Tensor) -> Result<(), ModelError> {
        let (capacity, dimension) = (self.capacity(), self.keys.dims()[1]);
        let count = match keys.dims() {
            [count, width] if *width == dimension => *count,
            found => {
                let expected = vec![found.first().copied().unwrap_or(0), dimension];
                return Err(ModelError::Shape {
                    tensor: "keys".into(),
                    expected,
                    found: found.to_vec(),
                });
            }
        };
        let kept = count.min(capacity);
        let start = (self.cursor + (count - kept)) % capacity;
        let before_wrap = kept.min(capacity - start);
        let newest = keys.narrow(0, count - kept, kept)?;
        for (from, to, rows) in [
            (0, start, before_wrap),
            (before_wrap, 0, kept - before_wrap),
        ] {
            if rows > 0 {
                let part = newest.narrow(0, from, rows)?.contiguous()?;
                self.keys.slice_set(&part, 0, to)?;
            }
        }
        self.cursor = (start + kept) % capacity;
        self.filled = self.filled.saturating_add(count).min(capacity);
        Ok(())
    }

    /// Copies what an [`KeyQueue::enqueue`] of `count` keys will change.
    ///
    /// # Errors
    /// When a copy fails on the device.
    pub fn ahead(&self, count: usize) -> Result<Overwritten, ModelError> {
        let count = count.min(self.capacity());
        let before_wrap = count.min(self.capacity() - self.cursor);
        let parts = [(self.cursor, before_wrap), (0, count - before_wrap)];
        let parts = parts.into_iter().filter(|(_, rows)| *rows > 0);
        // Not `copy`, which would take the whole queue along.
        let parts = parts.map(|(from, rows)| self.keys.narrow(0, from, rows)?.force_contiguous());
        Ok(Overwritten {
            parts: parts.collect::<candle_core::Result<_>>()?,
            cursor: self.cursor,
            filled: self.filled,
        })
    }

    /// Puts the queue back to where [`KeyQueue::ahead`] was asked, after no more keys than it was asked for.
    ///
    /// # Errors
    /// When a copy fails on the device.
    pub fn put_back(&mut self, overwritten: &Overwritten) -> Result<(), ModelError> {
        self.cursor = overwritten.cursor;
        for rows in &overwritten.parts {
            self.enqueue(rows)?;
        }
        (self.cursor, self.filled) = (overwritten.cursor, overwritten.filled);
        Ok(())
    }

    /// Copies of everything the queue remembers, for a checkpoint: `keys` `[K,D]` and the scalars `cursor` and `filled`.
    ///
    /// # Errors
    /// When a copy fails on the device.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>, ModelError> {
        Ok(vec![
            ("keys".into(), self.keys.copy()?),
            ("cursor".into(), count_to_tensor(self.cursor as u64)?),
            ("filled".into(), count_to_tensor(self.filled as u64)?),
        ])
    }

    /// Takes up the state that [`KeyQueue::state`] exported, found in `tensors` behind `prefix`. Other tensors are ignored.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or a count is larger than K. Nothing is changed then.
    pub fn load_state(
        &mut self,
        prefix: &str,
        tensors: &HashMap<String, Tensor>,
    ) -> Result<(), ModelError> {
        let capacity = self.capacity();
        let keys = tensor_from_state(tensors, &format!("{prefix}keys"), &self.keys)?;
        let count = |name: &str, largest: usize| {
            let name = format!("{prefix}{name}");
            let count = count_from_state(tensors, &name)?;
            let fitting = usize::try_from(count)
                .ok()
                .filter(|count| *count <= largest);
            fitting.ok_or_else(|| {
                misfit(
                    &name,
                    format!("at most {largest} in a queue of {capacity} keys"),
                    count,
                )
            })
        };
        let (cursor, filled) = (count("cursor", capacity - 1)?, count("filled", capacity)?);
        copy_into(&self.keys, &keys)?;
        (self.cursor, self.filled) = (cursor, filled);
        Ok(())
    }
}

fn random_unit_vectors(count: usize, dimension: usize, seed: u64) -> Vec<f32> {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(b"queue   ");
    let mut stream = ChaCha8Rng::from_seed(key);
    let mut values = Vec::with_capacity(count * dimension);
    for _ in 0..count {
        let row: Vec<f64> = (0..dimension).map(|_| normal(&mut stream)).collect();
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        values.extend(row.iter().map(|v| (v / norm) as f32));
    }
    values
}

#[cfg(test)]
mod tests;
