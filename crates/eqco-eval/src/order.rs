//! Random orders that depend on (seed, purpose, number) alone.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What an order is for; part of the stream's name, so that two uses never share numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Which images of a class are held out; numbered by class.
    HeldOut = 1,
    /// The order of the images in an epoch; numbered by epoch.
    Epoch = 2,
    /// Which images of a class keep their label; numbered by class.
    LabelShare = 3,
}

/// The stream with this name: the name is ChaCha's key.
pub(crate) fn stream(seed: u64, purpose: Purpose, number: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&number.to_le_bytes());
    key[16..20].copy_from_slice(&(purpose as u32).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// Shuffles in place (Fisher and Yates); every order is equally likely.
pub(crate) fn shuffle(stream: &mut ChaCha8Rng, items: &mut [u32]) {
    for last in (1..items.len()).rev() {
        // 64 bits against at most 2^32 items: the bias is below 2^-32 and not worth a second draw.
        let other = ((u128::from(stream.next_u64()) * (last as u128 + 1)) >> 64) as usize;
        items.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_orders_of_three_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for number in 0..6_000 {
            let mut items = [0, 1, 2];
            shuffle(&mut stream(3, Purpose::Epoch, number), &mut items);
            *counts.entry(items).or_insert(0.0) += 1.0;
        }
        let chi_square: f64 = counts
            .values()
            .map(|c: &f64| (c - 1_000.0).powi(2) / 1_000.0)
            .sum();
        assert_eq!(counts.len(), 6);
        // 5 degrees of freedom: 20.5 is exceeded once in a thousand seeds, and the seed is fixed.
        assert!(chi_square < 20.5, "{chi_square}");
    }

    #[test]
    fn every_part_of_the_name_changes_the_stream() {
        let first = |seed, purpose, number| stream(seed, purpose, number).next_u64();
        let all = [
            first(0, Purpose::Epoch, 0),
            first(1, Purpose::Epoch, 0),
            first(0, Purpose::HeldOut, 0),
            first(0, Purpose::LabelShare, 0),
            first(0, Purpose::Epoch, 1),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }
}
