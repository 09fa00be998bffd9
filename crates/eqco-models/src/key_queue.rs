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
mod tests {
    use candle_core::DType;

    use super::*;

    type TestResult = Result<(), ModelError>;

    /// N keys of two components, numbered from `first`: row i is (i, −i).
    fn numbered(first: usize, count: usize) -> Tensor {
        let rows: Vec<f32> = (first..first + count)
            .flat_map(|i| [i as f32, -(i as f32)])
            .collect();
        Tensor::from_vec(rows, (count, 2), &Device::Cpu).unwrap()
    }

    fn first_column(queue: &KeyQueue) -> Vec<f32> {
        let rows = queue.keys().to_vec2::<f32>().unwrap();
        rows.iter().map(|row| row[0]).collect()
    }

    #[test]
    fn initial_keys_are_unit_vectors_in_all_directions_keyed_by_the_seed() -> TestResult {
        let queue = KeyQueue::new(2000, 8, 7, &Device::Cpu)?;
        let rows = queue.keys().to_vec2::<f32>()?;
        let mut mean = [0f64; 8];
        for row in &rows {
            let norm: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
            assert!((norm - 1.0).abs() < 1e-6, "{norm}");
            mean.iter_mut()
                .zip(row)
                .for_each(|(mean, v)| *mean += f64::from(*v) / 2000.0);
        }
        // A component has variance 1/8: the mean's deviation is √(1/8/2000) = 0.0079, and 5 of them are allowed.
        assert!(mean.iter().all(|m| m.abs() < 0.04), "{mean:?}");
        assert_eq!(
            KeyQueue::new(2000, 8, 7, &Device::Cpu)?
                .keys()
                .to_vec2::<f32>()?,
            rows
        );
        assert_ne!(
            KeyQueue::new(2000, 8, 8, &Device::Cpu)?
                .keys()
                .to_vec2::<f32>()?,
            rows
        );
        assert_eq!(
            (queue.cursor(), queue.filled(), queue.capacity()),
            (0, 0, 2000)
        );
        Ok(())
    }

    #[test]
    fn keys_wrap_around_where_the_batch_does_not_divide_the_queue() -> TestResult {
        let mut queue = KeyQueue::new(5, 2, 0, &Device::Cpu)?;
        let untouched = first_column(&queue);
        queue.enqueue(&numbered(10, 3))?;
        assert_eq!(
            first_column(&queue),
            [10.0, 11.0, 12.0, untouched[3], untouched[4]]
        );
        assert_eq!((queue.cursor(), queue.filled()), (3, 3));
        queue.enqueue(&numbered(13, 3))?;
        assert_eq!(first_column(&queue), [15.0, 11.0, 12.0, 13.0, 14.0]);
        assert_eq!((queue.cursor(), queue.filled()), (1, 5));
        assert_eq!(queue.keys().to_vec2::<f32>()?[4], [14.0, -14.0]);
        Ok(())
    }

    #[test]
    fn any_batch_size_leaves_what_enqueuing_one_by_one_leaves() -> TestResult {
        for capacity in [1, 2, 5, 8] {
            for batch in [0, 1, 4, 5, 8, 13, 21] {
                let mut at_once = KeyQueue::new(capacity, 2, 3, &Device::Cpu)?;
                let mut one_by_one = KeyQueue::new(capacity, 2, 3, &Device::Cpu)?;
                for round in 0..3 {
                    at_once.enqueue(&numbered(100 * round, batch))?;
                    for key in 0..batch {
                        one_by_one.enqueue(&numbered(100 * round + key, 1))?;
                    }
                    assert_eq!(
                        first_column(&at_once),
                        first_column(&one_by_one),
                        "K {capacity}, N {batch}"
                    );
                    assert_eq!(
                        at_once.cursor(),
                        one_by_one.cursor(),
                        "K {capacity}, N {batch}"
                    );
                    assert_eq!(
                        at_once.filled(),
                        one_by_one.filled(),
                        "K {capacity}, N {batch}"
                    );
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_resumed_queue_goes_on_as_the_first_would_have() -> TestResult {
        let mut queue = KeyQueue::new(7, 2, 1, &Device::Cpu)?;
        queue.enqueue(&numbered(0, 5))?;
        let state: HashMap<_, _> = queue
            .state()?
            .into_iter()
            .map(|(n, t)| (format!("queue.{n}"), t))
            .collect();
        queue.enqueue(&numbered(5, 4))?;
        let mut resumed = KeyQueue::new(7, 2, 99, &Device::Cpu)?;
        resumed.load_state("queue.", &state)?;
        assert_eq!((resumed.cursor(), resumed.filled()), (5, 5));
        resumed.enqueue(&numbered(5, 4))?;
        assert_eq!(first_column(&resumed), first_column(&queue));
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() -> TestResult {
        let mut queue = KeyQueue::new(4, 2, 1, &Device::Cpu)?;
        let before = first_column(&queue);
        let wrong = Tensor::zeros((3, 5), DType::F32, &Device::Cpu)?;
        let message = queue.enqueue(&wrong).unwrap_err().to_string();
        assert!(
            message.contains("[3, 2]") && message.contains("[3, 5]"),
            "{message}"
        );
        assert!(
            queue
                .enqueue(&numbered(0, 2).to_dtype(DType::F64)?)
                .is_err()
        );
        assert!(queue.enqueue(&numbered(0, 2).flatten_all()?).is_err());

        let mut state: HashMap<_, _> = queue.state()?.into_iter().collect();
        state.insert("cursor".into(), Tensor::new(4i64, &Device::Cpu)?);
        let message = queue.load_state("", &state).unwrap_err().to_string();
        assert!(
            message.contains("tensor cursor: expected at most 3"),
            "{message}"
        );
        state.insert("cursor".into(), Tensor::new(-1i64, &Device::Cpu)?);
        assert!(
            queue
                .load_state("", &state)
                .unwrap_err()
                .to_string()
                .contains("found -1")
        );
        state.insert(
            "keys".into(),
            Tensor::zeros((5, 2), DType::F32, &Device::Cpu)?,
        );
        assert!(
            queue
                .load_state("", &state)
                .unwrap_err()
                .to_string()
                .contains("[5, 2]")
        );
        state.remove("keys");
        assert!(
            queue
                .load_state("", &state)
                .unwrap_err()
                .to_string()
                .contains("found nothing")
        );

        assert_eq!(first_column(&queue), before);
        assert_eq!((queue.cursor(), queue.filled()), (0, 0));
        assert!(
            KeyQueue::new(0, 2, 1, &Device::Cpu).is_err()
                && KeyQueue::new(2, 0, 1, &Device::Cpu).is_err()
        );
        assert!(
            KeyQueue::new(usize::MAX, 2, 1, &Device::Cpu)
                .unwrap_err()
                .to_string()
                .contains("address space")
        );
        Ok(())
    }
}
