//! The rows of a bank that are nearest to queries, by cosine similarity.

use rayon::prelude::*;

use crate::product::{Matrix, multiply};

/// Queries that one task compares; fixed, so that results do not depend on the thread count.
const QUERY_BLOCK: usize = 128;
/// Rows of the bank compared with a block of queries at a time: bounds the memory for similarities.
const BANK_BLOCK: usize = 2048;

/// For every row of `queries` the `count` rows of `bank` (at most all of them) with the largest cosine similarity, the
/// nearest first. Both are row-major `[rows, dim]`. Equal similarities rank by index, and a row of zeros has similarity 0 to
/// everything.
///
/// # Panics
/// If `dim` is 0 or a length is no multiple of it.
pub fn nearest_neighbours(
    bank: &[f32],
    queries: &[f32],
    dim: usize,
    count: usize,
) -> Vec<Vec<Neighbour>> {
    assert!(
        dim > 0 && bank.len().is_multiple_of(dim) && queries.len().is_multiple_of(dim),
        "{} and {} values are whole rows of {dim}",
        bank.len(),
        queries.len()
    );
    let bank = unit_rows(bank, dim);
    let count = count.min(bank.len() / dim);
    if count == 0 {
        return vec![Vec::new(); queries.len() / dim];
    }
    unit_rows(queries, dim)
        .par_chunks(QUERY_BLOCK * dim)
        .flat_map_iter(|block| nearest(block, &bank, dim, count))
        .collect()
}

/// All rows scaled to length 1 (rows of zeros stay), row-major `[count, dim]`.
fn unit_rows(values: &[f32], dim: usize) -> Vec<f32> {
    let mut units = values.to_vec();
    units.par_chunks_mut(dim).for_each(|row| {
        // In f64, where the square of no f32 overflows or vanishes.
        let length = row
            .iter()
            .map(|&v| f64::from(v).powi(2))
            .sum::<f64>()
            .sqrt();
        if length > 0.0 {
            row.iter_mut()
                .for_each(|value| *value = (f64::from(*value) / length) as f32);
        }
    });
    units
}

/// A training image near a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Cosine similarity, −1 to 1 up to rounding.
    pub similarity: f32,
    /// Row of the training image.
    pub index: usize,
}

/// For every row of `queries` its `count` nearest rows of `bank`, the nearest first.
fn nearest(queries: &[f32], bank: &[f32], dim: usize, count: usize) -> Vec<Vec<Neighbour>> {
    let rows = queries.len() / dim;
    let mut nearest = vec![Vec::with_capacity(count + 1); rows];
    let mut similarities = Vec::new();
    for (block, bank_rows) in bank.chunks(BANK_BLOCK * dim).enumerate() {
        let columns = bank_rows.len() / dim;
        similarities.resize(rows * columns, 0.0);
        multiply(
            &mut similarities,
            Matrix::new(queries, rows, dim, dim),
            Matrix::new(bank_rows, columns, dim, dim).transposed(),
        );
        for (found, row) in nearest.iter_mut().zip(similarities.chunks_exact(columns)) {
            for (column, &similarity) in row.iter().enumerate() {
                keep(
                    found,
                    count,
                    Neighbour {
                        similarity,
                        index: block * BANK_BLOCK + column,
                    },
                );
            }
        }
    }
    nearest
}

/// Puts `candidate` into its place among the `count` nearest so far. Candidates come in the order
/// of their indices, so that an equal one belongs behind those already there.
fn keep(nearest: &mut Vec<Neighbour>, count: usize, candidate: Neighbour) {
    if nearest.len() == count && candidate.similarity <= nearest[count - 1].similarity {
        return;
    }
    let place = nearest.partition_point(|other| other.similarity >= candidate.similarity);
    nearest.insert(place, candidate);
    nearest.truncate(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_and_lengths_do_not_count() {
        // Cosines to (1, 0): 0.6, 0, 1, −1.
        let bank = [3.0, 4.0, 0.0, 0.0, 0.1, 0.0, -7.0, 0.0];
        let found = nearest_neighbours(&bank, &[5.0, 0.0, 0.0, 2.0], 2, 9);
        let of = |query: usize| -> Vec<(usize, f32)> {
            found[query]
                .iter()
                .map(|n| (n.index, n.similarity))
                .collect()
        };
        assert_eq!(of(0), [(2, 1.0), (0, 0.6), (1, 0.0), (3, -1.0)]);
        assert_eq!(of(1), [(0, 0.8), (1, 0.0), (2, 0.0), (3, 0.0)]);
        assert_eq!(nearest_neighbours(&[], &[1.0], 1, 3), [[]]);
        assert_eq!(nearest_neighbours(&bank, &[1.0, 0.0], 2, 0), [[]]);
    }

    #[test]
    fn equals_rank_by_index_across_the_blocks_of_the_bank() {
        let rows = BANK_BLOCK + 7;
        let near = nearest_neighbours(&[0.6, 0.8].repeat(rows), &[1.0, 0.0], 2, 5);
        let indices: Vec<usize> = near[0].iter().map(|neighbour| neighbour.index).collect();
        assert_eq!(indices, [0, 1, 2, 3, 4]);
    }
}
