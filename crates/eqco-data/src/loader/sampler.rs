//! Which samples make up which batch.

use std::ops::Range;

use super::Part;
use crate::random::{Purpose, shuffle, stream};

/// The order of `len` samples in an epoch: a permutation that depends on (seed, epoch) only, or
/// the natural order.
pub(super) fn epoch_order(len: u32, shuffled: bool, seed: u64, epoch: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len).collect();
    if shuffled {
        shuffle(&mut stream(seed, Purpose::Order, epoch, 0, 0), &mut order);
    }
    order
}

/// How many batches `len` samples make.
pub(super) fn batch_count(len: usize, batch_size: usize, drop_last: bool) -> u64 {
    let count = if drop_last {
        len / batch_size
    } else {
        len.div_ceil(batch_size)
    };
    count as u64
}

/// The positions in the epoch's order that belong to a batch.
pub(super) fn batch_positions(batch: u64, batch_size: usize, len: usize) -> Range<usize> {
    let start = batch as usize * batch_size;
    start..(start + batch_size).min(len)
}

/// One of several consecutive parts of these positions, which they divide.
pub(super) fn part_of(positions: Range<usize>, part: Part) -> Range<usize> {
    let len = positions.len() / part.count;
    let start = positions.start + part.index * len;
    start..start + len
}

/// The positions to try for `position`: itself, then substitutes, each position once.
///
/// The substitutes are one, two, three batches ahead (round and round), so that a sample that
/// stands in for an unreadable one does not meet its own other occurrence in the same batch, where
/// it would be a negative identical to the positive.
pub(super) fn substitutes(
    position: usize,
    batch_size: usize,
    len: usize,
) -> impl Iterator<Item = usize> {
    let round = len / greatest_common_divisor(len, batch_size);
    (0..len).map(move |attempt| {
        let offset = attempt % round * (batch_size % len) + attempt / round;
        (position + offset) % len
    })
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_a_permutation_that_changes_with_seed_and_epoch() {
        let order = epoch_order(1000, true, 3, 7);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_eq!(order, epoch_order(1000, true, 3, 7));
        for (seed, epoch) in [(3, 8), (4, 7), (7, 3)] {
            let other = epoch_order(1000, true, seed, epoch);
            let same = order.iter().zip(&other).filter(|(a, b)| a == b).count();
            // Two random permutations agree in one place on average.
            assert!(same < 10, "{same} places");
        }
    }

    #[test]
    fn substitutes_visit_every_position_once() {
        for (len, batch_size) in [(12, 4), (12, 5), (7, 7), (5, 9), (1, 1), (100, 32)] {
            let mut visited: Vec<_> = substitutes(len / 2, batch_size, len).collect();
            assert_eq!(visited[0], len / 2);
            visited.sort_unstable();
            assert_eq!(visited, (0..len).collect::<Vec<_>>(), "{len} {batch_size}");
        }
    }
}
