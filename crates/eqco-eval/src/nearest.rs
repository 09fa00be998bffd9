//! The most similar rows of one set of features to each row of another, by cosine.

use rayon::prelude::*;

use crate::product::{Matrix, multiply};
use crate::{EvalError, Features};

/// Queries that one task looks at; fixed, so that results do not depend on the thread count.
const QUERY_BLOCK: usize = 128;
/// Rows of the bank compared with a block of queries at a time: bounds the memory for similarities.
const BANK_BLOCK: usize = 2048;

/// A row near a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Cosine of row and query, -1 to 1.
    pub similarity: f32,
    /// Row of the bank.
    pub index: usize,
}

/// For every row of `queries` its `count` nearest rows of `bank` by cosine similarity, the nearest
/// first. Equal similarities rank by index, the lower first; a row of zeros has similarity 0 to
/// everything. Runs on the current rayon pool; the result does not depend on its size.
///
/// # Errors
/// [`EvalError::Mismatch`] if the features differ in dimensions, [`EvalError::InvalidSetting`] if
/// `count` is not between 1 and the rows of the bank.
pub fn nearest_rows(
    bank: &Features,
    queries: &Features,
    count: usize,
) -> Result<Vec<Vec<Neighbour>>, EvalError> {
    if bank.dim() != queries.dim() {
        return Err(EvalError::Mismatch {
            quantity: "dimensions",
            train: bank.dim(),
            test: queries.dim(),
        });
    }
    if count == 0 || count > bank.count() {
        let expected = format!("1 to {}, the number of rows to choose from", bank.count());
        return Err(EvalError::setting("neighbours", expected, count));
    }
    let bank_units = unit_rows(bank);
    let query_units = unit_rows(queries);
    Ok(query_units
        .par_chunks(QUERY_BLOCK * queries.dim())
        .flat_map_iter(|block| nearest_in_block(block, &bank_units, bank.dim(), count))
        .collect())
}

/// All rows scaled to length 1 (rows of zeros stay), row-major `[count, dim]`.
fn unit_rows(features: &Features) -> Vec<f32> {
    let mut units = features.values().to_vec();
    units.par_chunks_mut(features.dim()).for_each(|row| {
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

/// For every row of `queries` its `count` nearest rows of `bank`, the nearest first.
fn nearest_in_block(
    queries: &[f32],
    bank: &[f32],
    dim: usize,
    count: usize,
) -> Vec<Vec<Neighbour>> {
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
    use crate::Origin;

    fn features(values: &[f32], dim: usize) -> Features {
        let origin = Origin::new("toy", "train", "by hand");
        Features::new(origin, values.to_vec(), dim, vec![0; values.len() / dim], 1).unwrap()
    }

    #[test]
    fn the_nearest_come_first_with_their_cosines() {
        let bank = features(&[0.0, 2.0, 3.0, 0.0, 0.6, 0.8, 0.0, 0.0], 2);
        let found = nearest_rows(&bank, &features(&[5.0, 0.0, 0.0, -1.0], 2), 3).unwrap();
        let rows =
            |query: usize| -> Vec<usize> { found[query].iter().map(|near| near.index).collect() };
        assert_eq!((rows(0), rows(1)), (vec![1, 2, 0], vec![1, 3, 2]));
        assert_eq!(found[0][0].similarity, 1.0);
        assert!(
            (found[0][1].similarity - 0.6).abs() < 1e-6
                && (found[1][2].similarity + 0.8).abs() < 1e-6
        );
    }

    #[test]
    fn equals_rank_by_index_across_blocks() {
        let bank = features(&[0.6, 0.8].repeat(BANK_BLOCK + 7), 2);
        let found = nearest_rows(&bank, &features(&[1.0, 0.0], 2), 5).unwrap();
        let indices: Vec<usize> = found[0].iter().map(|near| near.index).collect();
        assert_eq!(indices, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let bank = features(&[1.0, 2.0], 2);
        let error = nearest_rows(&bank, &features(&[1.0], 1), 1)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "dimensions: the training part has 2, the test part 1"
        );
        for count in [0, 2] {
            let error = nearest_rows(&bank, &bank, count).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "neighbours: expected 1 to 1, the number of rows to choose from, got {count}"
                )
            );
        }
    }
}
