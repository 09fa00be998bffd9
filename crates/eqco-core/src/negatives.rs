//! Which keys of the batch serve as negatives of which query.
//!
//! SiMo (arXiv 2010.01929, section 3.2) needs no queue: the negatives of a query are `K` keys of
//! other images of the same batch, drawn anew at every step.

use candle_core::Tensor;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::error::LossError;

/// Keeps this stream of random numbers apart from every other that uses the same seed.
const PURPOSE: &[u8; 16] = b"batch negatives\0";

/// Where the negatives of a loss come from.
#[derive(Debug, Clone, Copy)]
pub enum Negatives<'a> {
    /// The same `[K, D]` matrix for every query, such as MoCo's queue of past keys.
    Shared(&'a Tensor),
    /// Keys of the same batch, `K` of them for each query.
    InBatch(&'a NegativeDraw),
    /// The same, where the queries at hand are only some consecutive ones of the batch: what a step in
    /// micro-batches needs for the same loss as one that takes the batch at once.
    InLargerBatch {
        /// The draw for the whole batch of `B` images.
        draw: &'a NegativeDraw,
        /// All keys of the batch, `[B, D]`.
        batch_keys: &'a Tensor,
        /// Place of the first query at hand in the batch; at most `B - N`.
        first: usize,
    },
}

/// How in-batch negatives are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrawKind {
    /// Every query draws its own `K` keys.
    #[default]
    PerQuery,
    /// One draw of `K` columns serves all queries, as in the authors' code: query `i` uses key `c`
    /// for every drawn column `c < i` and key `c + 1` otherwise, which steps over its own key.
    SharedColumns,
}

/// The negatives of a batch: for each of `N` queries the indices of `K` keys, never its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegativeDraw {
    batch_size: usize,
    negative_count: usize,
    indices: Vec<u32>,
}

impl NegativeDraw {
    /// Draws `negative_count` keys for each query, uniformly and without replacement from the
    /// `batch_size - 1` keys of other images.
    ///
    /// The result depends on the arguments alone: a ChaCha8 stream is keyed by the seed and the
    /// step, so that a resumed run draws what the uninterrupted one would have drawn.
    ///
    /// # Errors
    /// [`LossError::NoNegatives`] for 0 negatives and [`LossError::TooManyNegatives`], which names
    /// the largest possible number, for more than `batch_size - 1`.
    pub fn sample(
        kind: DrawKind,
        batch_size: usize,
        negative_count: usize,
        seed: u64,
        step: u64,
    ) -> Result<Self, LossError> {
        check_count(batch_size, negative_count)?;
        let mut random = keyed_stream(seed, step);
        let mut columns: Vec<u32> = (0..batch_size as u32 - 1).collect();
        let mut indices = Vec::with_capacity(batch_size * negative_count);
        for query in 0..batch_size {
            if kind == DrawKind::PerQuery || query == 0 {
                shuffle_front(&mut columns, negative_count, &mut random);
            }
            indices.extend(
                columns[..negative_count]
                    .iter()
                    .map(|&c| step_over(query, c)),
            );
        }
        Ok(Self {
            batch_size,
            negative_count,
            indices,
        })
    }

    /// All other keys of the batch for every query, `K = batch_size - 1`.
    ///
    /// # Errors
    /// [`LossError::TooManyNegatives`] for a batch of fewer than two images.
    pub fn all_others(batch_size: usize) -> Result<Self, LossError> {
        let negative_count = batch_size.saturating_sub(1).max(1);
        check_count(batch_size, negative_count)?;
        let indices = (0..batch_size)
            .flat_map(|query| (0..negative_count as u32).map(move |c| step_over(query, c)))
            .collect();
        Ok(Self {
            batch_size,
            negative_count,
            indices,
        })
    }

    /// Takes a given list of key indices, `[N, K]` in row-major order.
    ///
    /// # Errors
    /// [`LossError::NoNegatives`] and [`LossError::TooManyNegatives`] as in [`Self::sample`];
    /// [`LossError::Draw`] when the list has another length than `N * K`, names a key that is not in
    /// the batch, or gives a query its own key. A key may stand twice in a row.
    pub fn from_indices(
        batch_size: usize,
        negative_count: usize,
        indices: Vec<u32>,
    ) -> Result<Self, LossError> {
        check_count(batch_size, negative_count)?;
        if Some(indices.len()) != batch_size.checked_mul(negative_count) {
            let got = indices.len();
            let problem = format!("expected {batch_size} x {negative_count} indices, got {got}");
            return Err(LossError::Draw { problem });
        }
        for (query, row) in indices.chunks_exact(negative_count).enumerate() {
            let wrong = row
                .iter()
                .find(|&&k| k as usize >= batch_size || k as usize == query);
            if let Some(key) = wrong {
                let problem = format!(
                    "query {query} may use keys 0..{batch_size} but its own, got key {key}"
                );
                return Err(LossError::Draw { problem });
            }
        }
        Ok(Self {
            batch_size,
            negative_count,
            indices,
        })
    }

    /// Number of queries `N`.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Negatives per query `K`.
    pub fn negative_count(&self) -> usize {
        self.negative_count
    }

    /// All key indices, `[N, K]` in row-major order.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The keys that serve as negatives of one query.
    ///
    /// # Panics
    /// If `query` is not below [`Self::batch_size`].
    pub fn of_query(&self, query: usize) -> &[u32] {
        &self.indices[query * self.negative_count..][..self.negative_count]
    }
}

fn check_count(batch_size: usize, negative_count: usize) -> Result<(), LossError> {
    if negative_count == 0 {
        return Err(LossError::NoNegatives);
    }
    let largest = batch_size.saturating_sub(1);
    if negative_count > largest {
        return Err(LossError::TooManyNegatives {
            requested: negative_count,
            batch_size,
            largest,
        });
    }
    if u32::try_from(batch_size).is_err() || batch_size.checked_mul(negative_count).is_none() {
        let problem = format!("a batch of {batch_size} is too large to be indexed");
        return Err(LossError::Draw { problem });
    }
    Ok(())
}

fn keyed_stream(seed: u64, step: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&step.to_le_bytes());
    key[16..].copy_from_slice(PURPOSE);
    ChaCha8Rng::from_seed(key)
}

/// Column `c` of a batch without the query's own key, as an index into the whole batch.
fn step_over(query: usize, column: u32) -> u32 {
    column + u32::from(column as usize >= query)
}

/// The first `count` steps of a Fisher-Yates shuffle. Starting from any order gives a uniform draw,
/// so the order left by the last query is as good as a fresh one.
fn shuffle_front(columns: &mut [u32], count: usize, random: &mut ChaCha8Rng) {
    for place in 0..count {
        let remaining = (columns.len() - place) as u32;
        columns.swap(place, place + uniform_below(remaining, random) as usize);
    }
}

/// A uniform integer in `0..bound`, without the bias of a plain remainder (Lemire, arXiv
/// 1805.10941).
fn uniform_below(bound: u32, random: &mut ChaCha8Rng) -> u32 {
    let biased_zone = bound.wrapping_neg() % bound;
    loop {
        let product = u64::from(random.next_u32()) * u64::from(bound);
        if product as u32 >= biased_zone {
            return (product >> 32) as u32;
        }
    }
}
