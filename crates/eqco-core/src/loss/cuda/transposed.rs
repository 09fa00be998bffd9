//! A draw of negatives from the keys' side.

use crate::error::LossError;
use crate::negatives::NegativeDraw;

/// For each key the queries that drew it, in ascending order; a query that drew it twice stands there twice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TransposedDraw {
    /// Where the list of each key begins, and behind them where the last one ends, `[B + 1]`.
    pub starts: Vec<u32>,
    /// All lists, `[B * K]`.
    pub queries: Vec<u32>,
}

impl TransposedDraw {
    /// Sorts by counting, in time `B * K`.
    ///
    /// # Errors
    /// [`LossError::Draw`] when `B * K` does not fit into 32 bits.
    pub(super) fn of(draw: &NegativeDraw) -> Result<Self, LossError> {
        let count = draw.indices().len();
        if u32::try_from(count).is_err() {
            let problem = format!("{count} indices are too many for the gradient of the keys");
            return Err(LossError::Draw { problem });
        }
        let mut starts = vec![0u32; draw.batch_size() + 1];
        for &key in draw.indices() {
            starts[key as usize + 1] += 1;
        }
        for key in 0..draw.batch_size() {
            starts[key + 1] += starts[key];
        }
        let mut next = starts.clone();
        let mut queries = vec![0; count];
        for query in 0..draw.batch_size() {
            for &key in draw.of_query(query) {
                queries[next[key as usize] as usize] = query as u32;
                next[key as usize] += 1;
            }
        }
        Ok(Self { starts, queries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_lists_who_drew_it() {
        let draw = NegativeDraw::from_indices(4, 2, vec![1, 3, 3, 3, 1, 0, 1, 0]).unwrap();
        let transposed = TransposedDraw::of(&draw).unwrap();
        assert_eq!(transposed.starts, [0, 2, 5, 5, 8]);
        assert_eq!(transposed.queries, [2, 3, 0, 2, 3, 0, 1, 1]);
    }
}
