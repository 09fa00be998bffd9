//! Negatives drawn for each query from the keys of the batch.
//!
//! The keys of a batch fit into the second-level cache, so each query gathers its `K` rows one by
//! one. Work is split by the sizes of the input alone.

use std::ops::Range;

use rayon::prelude::*;

use super::sweep::NegativeSweep;
use super::vector;
use crate::negatives::NegativeDraw;

/// Queries that one task works on.
const QUERY_GROUP: usize = 16;
/// Least number of keys whose gradient one task gathers.
const KEY_GROUP: usize = 32;
/// Most tasks for the gradient of the keys: each of them reads the whole draw.
const KEY_TASKS: usize = 32;

/// Queries, keys, which key is whose negative, and the temperature.
pub(super) struct GatheredNegatives<'a> {
    /// `[N, dim]`.
    pub queries: &'a [f32],
    /// Keys of the whole batch that `draw` is for, `[B, dim]`.
    pub keys: &'a [f32],
    pub draw: &'a NegativeDraw,
    /// Place of the first query in that batch.
    pub first: usize,
    pub dim: usize,
    pub inverse_temperature: f32,
}

impl GatheredNegatives<'_> {
    /// One pass over the negatives of every query.
    pub(super) fn sweep(&self) -> NegativeSweep {
        let count = self.queries.len() / self.dim;
        let groups: Vec<_> = (0..count.div_ceil(QUERY_GROUP))
            .into_par_iter()
            .map(|group| {
                let start = group * QUERY_GROUP;
                let queries = start..(start + QUERY_GROUP).min(count);
                self.sweep_queries(queries)
            })
            .collect();
        NegativeSweep::concatenate(groups, self.dim)
    }

    fn sweep_queries(&self, queries: Range<usize>) -> NegativeSweep {
        let mut sweep = NegativeSweep::new(queries.len(), self.dim);
        let mut logits = vec![0.0; self.draw.negative_count()];
        for (place, query) in queries.enumerate() {
            let keys = self.draw.of_query(self.first + query);
            for (logit, &key) in logits.iter_mut().zip(keys) {
                *logit = self.logit(query, key as usize);
            }
            sweep.absorb(place, &mut logits);
            let sum = &mut sweep.weighted_keys[place * self.dim..][..self.dim];
            for (&weight, &key) in logits.iter().zip(keys) {
                vector::add_scaled(sum, weight, self.row(self.keys, key as usize));
            }
        }
        sweep
    }

    /// Adds to `gradient` (`[N, dim]`) the gradient of the mean loss with respect to the keys in
    /// their role as negatives. `coefficients` holds `g / (temperature * N)` for each query.
    ///
    /// Each task owns some keys and visits the queries in order, so that no two tasks write to one
    /// row and the order of the sums is fixed.
    pub(super) fn add_keys_gradient(
        &self,
        sweep: &NegativeSweep,
        coefficients: &[f32],
        gradient: &mut [f32],
    ) {
        let group = self.draw.batch_size().div_ceil(KEY_TASKS).max(KEY_GROUP);
        gradient
            .par_chunks_mut(group * self.dim)
            .enumerate()
            .for_each(|(index, part)| {
                let start = index * group;
                let owned = start..start + part.len() / self.dim;
                self.add_owned_gradient(owned, sweep, coefficients, part);
            });
    }

    fn add_owned_gradient(
        &self,
        owned: Range<usize>,
        sweep: &NegativeSweep,
        coefficients: &[f32],
        gradient: &mut [f32],
    ) {
        for (query, sums) in sweep.sums.iter().enumerate() {
            let factor = coefficients[query] / sums.weight as f32;
            for key in self
                .draw
                .of_query(self.first + query)
                .iter()
                .map(|&key| key as usize)
            {
                if owned.contains(&key) {
                    let mut weight = [self.logit(query, key)];
                    vector::exponentiate(&mut weight, sums.largest, factor);
                    let target = &mut gradient[(key - owned.start) * self.dim..][..self.dim];
                    vector::add_scaled(target, weight[0], self.row(self.queries, query));
                }
            }
        }
    }

    fn logit(&self, query: usize, key: usize) -> f32 {
        self.inverse_temperature
            * vector::dot(self.row(self.queries, query), self.row(self.keys, key))
    }

    fn row<'r>(&self, rows: &'r [f32], index: usize) -> &'r [f32] {
        &rows[index * self.dim..][..self.dim]
    }
}
