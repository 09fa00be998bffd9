//! Negatives that all queries share: two matrix products a tile, and never a whole `[N, K]` matrix.
//!
//! A tile is [`TILE`] negatives against a group of at most [`QUERY_GROUP`] queries; its logits stay
//! in the second-level cache. Work is split by the sizes of the input alone and partial results are
//! joined in a fixed tree, so that the result does not depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::rows::Rows;
use super::sweep::NegativeSweep;
use super::tile_product::{Tile, add_product, multiply};
use super::vector;

/// Queries that one task works on.
const QUERY_GROUP: usize = 128;
/// Negatives in one tile.
const TILE: usize = 256;
/// Negatives that one task sweeps: enough tiles to pay for joining its result.
const CHUNK: usize = 4 * TILE;

/// Columns that are not negatives of a row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Exclusion {
    /// Every column counts.
    Nothing,
    /// NT-Xent: queries and negatives are the same `2 * half` rows, and row `i` excludes itself and
    /// its positive, the row `half` further on, cyclically.
    SelfAndPartner {
        /// Number of images.
        half: usize,
    },
}

/// Queries, shared negatives and the temperature.
pub(super) struct SharedNegatives<'a> {
    /// `[N, dim]`.
    pub queries: &'a [f32],
    /// `[K, dim]`.
    pub negatives: Rows<'a>,
    pub dim: usize,
    pub inverse_temperature: f32,
    pub exclusion: Exclusion,
}

impl SharedNegatives<'_> {
    /// One pass over the negatives for all queries.
    pub(super) fn sweep(&self) -> NegativeSweep {
        let negatives = 0..self.negatives.len() / self.dim;
        let groups: Vec<_> = ranges(self.queries.len() / self.dim, QUERY_GROUP)
            .into_par_iter()
            .map(|group| self.sweep_group(group, negatives.clone()))
            .collect();
        NegativeSweep::concatenate(groups, self.dim)
    }

    /// Halves the negatives until a task is small enough, and joins the halves in order.
    fn sweep_group(&self, queries: Range<usize>, negatives: Range<usize>) -> NegativeSweep {
        if negatives.len() <= CHUNK {
            return self.sweep_chunk(queries, negatives);
        }
        let middle = negatives.start + (negatives.len() / 2).next_multiple_of(TILE);
        let (left, right) = rayon::join(
            || self.sweep_group(queries.clone(), negatives.start..middle),
            || self.sweep_group(queries.clone(), middle..negatives.end),
        );
        left.merge(&right)
    }

    fn sweep_chunk(&self, queries: Range<usize>, negatives: Range<usize>) -> NegativeSweep {
        let mut sweep = NegativeSweep::new(queries.len(), self.dim);
        let mut widened = Vec::new();
        let mut logits = vec![0.0; queries.len() * TILE.min(negatives.len())];
        for tile in tiles(negatives) {
            let columns = tile.len();
            let keys = self.negatives.tile(tile.clone(), self.dim, &mut widened);
            let logits = &mut logits[..queries.len() * columns];
            self.fill_logits(logits, queries.clone(), tile, keys);
            for (query, row) in logits.chunks_exact_mut(columns).enumerate() {
                sweep.absorb(query, row);
            }
            let keys = Tile::new(keys, self.dim);
            add_product(&mut sweep.weighted_keys, Tile::new(logits, columns), keys);
        }
        sweep
    }

    /// Gradient of the mean loss with respect to the negatives, `[K, dim]`: a second pass that
    /// computes the logits again. `coefficients` holds `g / (temperature * N)` for each query.
    pub(super) fn negatives_gradient(
        &self,
        sweep: &NegativeSweep,
        coefficients: &[f32],
    ) -> Vec<f32> {
        let mut gradient = vec![0.0; self.negatives.len()];
        gradient
            .par_chunks_mut(TILE * self.dim)
            .enumerate()
            .for_each(|(index, part)| {
                let start = index * TILE;
                self.tile_gradient(
                    start..start + part.len() / self.dim,
                    sweep,
                    coefficients,
                    part,
                );
            });
        gradient
    }

    fn tile_gradient(
        &self,
        tile: Range<usize>,
        sweep: &NegativeSweep,
        coefficients: &[f32],
        gradient: &mut [f32],
    ) {
        let columns = tile.len();
        let mut widened = Vec::new();
        let keys = self.negatives.tile(tile.clone(), self.dim, &mut widened);
        let mut weights = vec![0.0; QUERY_GROUP * columns];
        for group in ranges(self.queries.len() / self.dim, QUERY_GROUP) {
            let weights = &mut weights[..group.len() * columns];
            self.fill_logits(weights, group.clone(), tile.clone(), keys);
            for (query, row) in group.clone().zip(weights.chunks_exact_mut(columns)) {
                let sums = sweep.sums[query];
                let factor = coefficients[query] / sums.weight as f32;
                vector::exponentiate(row, sums.largest, factor);
            }
            let queries = Tile::new(self.query_rows(group), self.dim);
            add_product(gradient, Tile::new(weights, columns).transposed(), queries);
        }
    }

    /// Logits of a group of queries against the keys of one tile; excluded ones are minus infinity.
    fn fill_logits(
        &self,
        logits: &mut [f32],
        queries: Range<usize>,
        tile: Range<usize>,
        keys: &[f32],
    ) {
        let left = Tile::new(self.query_rows(queries.clone()), self.dim);
        let right = Tile::new(keys, self.dim).transposed();
        multiply(logits, self.inverse_temperature, left, right);
        if let Exclusion::SelfAndPartner { half } = self.exclusion {
            for (query, row) in queries.zip(logits.chunks_exact_mut(tile.len())) {
                for excluded in [query, (query + half) % (2 * half)] {
                    if tile.contains(&excluded) {
                        row[excluded - tile.start] = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }

    fn query_rows(&self, range: Range<usize>) -> &[f32] {
        &self.queries[range.start * self.dim..range.end * self.dim]
    }
}

fn tiles(negatives: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    negatives
        .clone()
        .step_by(TILE)
        .map(move |start| start..(start + TILE).min(negatives.end))
}

/// `0..count` in consecutive pieces of at most `size`.
fn ranges(count: usize, size: usize) -> Vec<Range<usize>> {
    (0..count)
        .step_by(size)
        .map(|start| start..(start + size).min(count))
        .collect()
}
