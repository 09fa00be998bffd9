//! Which samples make up which batch.

use std::ops::Range;

use super::Part;
use crate::dataset::Run;
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

/// An order in which the samples of a few shards are read at a time.
pub(super) struct ShardOrder {
    /// Sample index at each position.
    pub(super) samples: Vec<u32>,
    /// Shards in the order in which they are come to.
    pub(super) shards: Vec<u32>,
    /// How many positions, and how many of these shards, end with each window.
    pub(super) window_ends: Vec<(usize, usize)>,
}

impl ShardOrder {
    /// How many shards are read to their ends once all positions before `position` are.
    pub(super) fn shards_done(&self, position: usize) -> usize {
        let windows = self.window_ends.partition_point(|end| end.0 <= position);
        windows
            .checked_sub(1)
            .map_or(0, |last| self.window_ends[last].1)
    }
}

/// Shards in an order that depends on (seed, epoch) only, `window` of them at a time, and the samples of these mixed with each
/// other; without a shuffle, all in their natural order. Every sample comes once.
pub(super) fn shard_order(
    runs: &[Run],
    window: Option<usize>,
    seed: u64,
    epoch: u64,
) -> ShardOrder {
    let begins = runs.iter().scan(0, |next, run| {
        let begin = *next;
        *next += run.images;
        Some(begin..*next)
    });
    let samples_of: Vec<Range<u32>> = begins.collect();
    let turns = epoch_order(runs.len() as u32, window.is_some(), seed, epoch);
    let mut order = ShardOrder {
        samples: Vec::with_capacity(samples_of.last().map_or(0, |last| last.end as usize)),
        shards: turns
            .iter()
            .map(|&turn| runs[turn as usize].shard)
            .collect(),
        window_ends: Vec::new(),
    };
    let mut shards = 0;
    for (number, turns) in (1..).zip(turns.chunks(window.unwrap_or(1))) {
        let begin = order.samples.len();
        let samples = turns.iter().map(|&turn| samples_of[turn as usize].clone());
        order.samples.extend(samples.flatten());
        if window.is_some() {
            let mut random = stream(seed, Purpose::Order, epoch, number, 0);
            shuffle(&mut random, &mut order.samples[begin..]);
        }
        shards += turns.len();
        order.window_ends.push((order.samples.len(), shards));
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

    fn runs(images: &[u32]) -> Vec<Run> {
        let runs = (10..)
            .zip(images)
            .map(|(shard, &images)| Run { shard, images });
        runs.collect()
    }

    #[test]
    fn windows_of_shards_hold_all_their_samples_once() {
        let runs = runs(&[3, 1, 4, 1, 5, 9, 2]);
        let order = shard_order(&runs, Some(3), 3, 7);
        let mut sorted = order.samples.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..25).collect::<Vec<_>>());
        assert_eq!(order.samples, shard_order(&runs, Some(3), 3, 7).samples);
        assert_ne!(order.shards, shard_order(&runs, Some(3), 3, 8).shards);
        let begins = [0, 3, 4, 8, 9, 14, 23, 25];
        let (mut position, mut turn) = (0, 0);
        for &(end, shards) in &order.window_ends {
            let window = &order.shards[turn..shards];
            let of_window = |sample: &u32| {
                let run = begins.partition_point(|begin| begin <= sample) as u32 - 1;
                window.contains(&(10 + run))
            };
            assert!(order.samples[position..end].iter().all(of_window));
            (position, turn) = (end, shards);
        }
        assert_eq!((position, turn), (25, 7));
        let first = order.window_ends[0].0;
        let done = [0, first - 1, first, 25].map(|position| order.shards_done(position));
        assert_eq!(done, [0, 0, 3, 7]);
    }

    #[test]
    fn all_shards_in_one_window_mix_as_if_there_were_none() {
        let order = shard_order(&runs(&[500, 500]), Some(16), 3, 7);
        let early = order.samples[..500].iter().filter(|&&sample| sample < 500);
        // 250 on average, with a standard deviation of 7.9.
        assert!((210..290).contains(&early.count()));
        let natural = shard_order(&runs(&[2, 3]), None, 3, 7);
        assert_eq!(natural.samples, [0, 1, 2, 3, 4]);
        assert_eq!(natural.window_ends, [(2, 1), (5, 2)]);
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
