//! What one pass over the negatives leaves behind for each query.
//!
//! The softmax is *online* (Milakov and Gimelshein, arXiv 1805.02867): sums are kept relative to the
//! largest logit met so far and rescaled when a larger one comes, so that no logit is read twice and
//! no exponential can overflow, whatever the temperature.

use super::vector;

/// Softmax sums of one query over the negatives seen so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct SoftmaxSums {
    /// Largest logit, minus infinity before the first.
    pub largest: f32,
    /// Sum of `exp(logit - largest)`.
    pub weight: f64,
    /// Plain sum of the logits.
    pub logit: f64,
}

impl SoftmaxSums {
    const EMPTY: Self = Self {
        largest: f32::NEG_INFINITY,
        weight: 0.0,
        logit: 0.0,
    };

    /// `ln(sum exp(logit))`.
    pub(super) fn log_sum(&self) -> f64 {
        f64::from(self.largest) + self.weight.ln()
    }

    /// Raises the largest logit; returns the factor that what was summed so far shrinks by.
    fn raise(&mut self, largest: f32) -> f32 {
        let factor = (self.largest - largest).exp();
        self.largest = largest;
        self.weight *= f64::from(factor);
        factor
    }
}

/// Softmax sums and weighted key sums of a group of queries.
#[derive(Debug)]
pub(super) struct NegativeSweep {
    /// One entry for each query.
    pub sums: Vec<SoftmaxSums>,
    /// Sum of `exp(logit - largest) * key` for each query, `[queries, dim]`.
    pub weighted_keys: Vec<f32>,
    dim: usize,
}

impl NegativeSweep {
    pub(super) fn new(queries: usize, dim: usize) -> Self {
        Self {
            sums: vec![SoftmaxSums::EMPTY; queries],
            weighted_keys: vec![0.0; queries * dim],
            dim,
        }
    }

    /// Takes in one row of logits of one query and turns it into weights relative to the largest
    /// logit so far. The weighted keys are rescaled; adding the new ones is left to the caller.
    pub(super) fn absorb(&mut self, query: usize, logits: &mut [f32]) {
        let sums = &mut self.sums[query];
        let (largest, logit_sum) = vector::largest_and_sum(logits);
        sums.logit += f64::from(logit_sum);
        if largest > sums.largest {
            let factor = sums.raise(largest);
            vector::scale(
                &mut self.weighted_keys[query * self.dim..][..self.dim],
                factor,
            );
        }
        // Nothing but excluded or NaN entries so far: any finite shift will do.
        let shift = if sums.largest == f32::NEG_INFINITY {
            0.0
        } else {
            sums.largest
        };
        sums.weight += f64::from(vector::exponentiate(logits, shift, 1.0));
    }

    /// Adds what another sweep found for the same queries over other negatives.
    pub(super) fn merge(mut self, other: &Self) -> Self {
        let rows = self.weighted_keys.chunks_exact_mut(self.dim);
        let other_rows = other.weighted_keys.chunks_exact(self.dim);
        for (((sums, row), theirs), their_row) in self
            .sums
            .iter_mut()
            .zip(rows)
            .zip(&other.sums)
            .zip(other_rows)
        {
            if theirs.largest > sums.largest {
                vector::scale(row, sums.raise(theirs.largest));
            }
            let factor = if theirs.largest == sums.largest {
                1.0
            } else {
                (theirs.largest - sums.largest).exp()
            };
            sums.weight += f64::from(factor) * theirs.weight;
            sums.logit += theirs.logit;
            vector::add_scaled(row, factor, their_row);
        }
        self
    }

    /// Joins sweeps of consecutive groups of queries.
    pub(super) fn concatenate(groups: Vec<Self>, dim: usize) -> Self {
        let mut whole = Self::new(0, dim);
        for group in groups {
            whole.sums.extend(group.sums);
            whole.weighted_keys.extend(group.weighted_keys);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One query of dimension 1 whose keys equal its logits.
    fn sweep_of(tiles: &[&[f32]]) -> NegativeSweep {
        let mut sweep = NegativeSweep::new(1, 1);
        for tile in tiles {
            let mut weights = tile.to_vec();
            sweep.absorb(0, &mut weights);
            for (weight, key) in weights.iter().zip(*tile).filter(|(_, key)| key.is_finite()) {
                sweep.weighted_keys[0] += weight * key;
            }
        }
        sweep
    }

    #[test]
    fn tiles_and_merges_give_the_softmax_of_the_whole() {
        let logits = [-3.0f32, 80.0, 79.0, -200.0, 81.5, f32::NEG_INFINITY];
        let finite = &logits[..5];
        let expected: f64 = finite.iter().map(|&s| (f64::from(s) - 81.5).exp()).sum();
        let expected_key: f64 = finite
            .iter()
            .map(|&s| (f64::from(s) - 81.5).exp() * f64::from(s))
            .sum();
        let whole = sweep_of(&[&logits]);
        let tiled = sweep_of(&[&logits[..2], &logits[2..3], &logits[3..]]);
        let merged = sweep_of(&[&logits[..3]]).merge(&sweep_of(&[&logits[3..]]));
        let reversed = sweep_of(&[&logits[3..]]).merge(&sweep_of(&[&logits[..3]]));
        for sweep in [whole, tiled, merged, reversed] {
            let sums = sweep.sums[0];
            assert!((sums.log_sum() - 81.5 - expected.ln()).abs() < 1e-6);
            assert!((f64::from(sweep.weighted_keys[0]) - expected_key).abs() < 2e-5 * expected_key);
            assert_eq!(
                sums.logit,
                finite.iter().map(|&s| f64::from(s)).sum::<f64>()
            );
        }
    }

    #[test]
    fn a_tile_of_excluded_negatives_changes_nothing() {
        let excluded = [f32::NEG_INFINITY; 3];
        for sweep in [sweep_of(&[&[1.0]]), NegativeSweep::new(1, 1)] {
            let before = sweep.sums[0];
            let mut empty = NegativeSweep::new(1, 1);
            empty.absorb(0, &mut excluded.clone());
            let after = sweep.merge(&empty).sums[0];
            assert_eq!(
                (after.largest, after.weight, after.logit),
                (before.largest, before.weight, before.logit)
            );
        }
    }
}
