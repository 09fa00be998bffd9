//! Smallest, median and largest of some numbers.

use serde::Serialize;

/// Where some numbers lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: usize,
    /// The one in the middle; between the two in the middle of an even number of them.
    pub median: f64,
    /// The largest.
    pub max: usize,
}

impl Spread {
    /// Of `numbers`, in any order; `None` if there are none.
    pub fn of(mut numbers: Vec<usize>) -> Option<Self> {
        numbers.sort_unstable();
        let (min, max) = (*numbers.first()?, *numbers.last()?);
        let upper = numbers.len() / 2;
        let lower = (numbers.len() - 1) / 2;
        Some(Self {
            min,
            median: (numbers[lower] as f64 + numbers[upper] as f64) / 2.0,
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_two() {
        let spread =
            |numbers: &[usize]| Spread::of(numbers.to_vec()).map(|s| (s.min, s.median, s.max));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[7]), Some((7, 7.0, 7)));
        assert_eq!(spread(&[9, 1, 4]), Some((1, 4.0, 9)));
        assert_eq!(spread(&[9, 1, 4, 5]), Some((1, 4.5, 9)));
    }
}
