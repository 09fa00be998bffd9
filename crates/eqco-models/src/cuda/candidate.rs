//! Which of cuDNN's algorithms to take.

/// So much memory an algorithm may take to compute in, in bytes: as much again as a large layer's activations. Beyond it the
/// fastest algorithms save little, and the memory is a larger batch.
const MOST_WORKSPACE: usize = 1 << 30;

/// An algorithm for one convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate<K> {
    pub(super) kind: K,
    /// Whether it can compute this convolution here.
    pub(super) works: bool,
    /// Whether it adds in an order of its own, the same in every run.
    pub(super) is_deterministic: bool,
    /// Bytes to compute in.
    pub(super) workspace: usize,
}

/// The first that will do, of candidates in the order of their speed.
pub(super) fn first_usable<K: Copy>(
    candidates: &[Candidate<K>],
    deterministic: bool,
) -> Option<Candidate<K>> {
    candidates
        .iter()
        .find(|candidate| {
            candidate.works
                && candidate.workspace <= MOST_WORKSPACE
                && (candidate.is_deterministic || !deterministic)
        })
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: u8, works: bool, is_deterministic: bool, workspace: usize) -> Candidate<u8> {
        Candidate {
            kind,
            works,
            is_deterministic,
            workspace,
        }
    }

    #[test]
    fn the_fastest_that_works_fits_and_is_as_reproducible_as_asked_for() {
        let candidates = [
            candidate(0, false, true, 0),
            candidate(1, true, true, MOST_WORKSPACE + 1),
            candidate(2, true, false, MOST_WORKSPACE),
            candidate(3, true, true, 7),
            candidate(4, true, true, 0),
        ];
        let chosen = |deterministic| first_usable(&candidates, deterministic).map(|c| c.kind);
        assert_eq!(chosen(false), Some(2));
        assert_eq!(chosen(true), Some(3));
        assert_eq!(first_usable(&candidates[..2], false), None);
        assert_eq!(first_usable(&candidates[..3], true), None);
    }
}
