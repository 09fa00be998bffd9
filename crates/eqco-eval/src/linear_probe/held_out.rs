//! The part of the training set on which the grid of the linear probe is judged.

use rand_chacha::ChaCha8Rng;

use crate::order;

/// Row indices of the two parts; ascending, disjoint, together all rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldOut {
    /// Rows to fit on.
    pub(super) fit: Vec<u32>,
    /// Rows to judge on.
    pub(super) judge: Vec<u32>,
}

/// Draws `share` of every class (rounded to the nearest whole number, but at least one image of a
/// class that has two), so that a balanced set stays balanced on both sides.
pub(super) fn split(labels: &[u32], class_count: usize, share: f64, seed: u64) -> HeldOut {
    let mut members = vec![Vec::new(); class_count];
    for (row, &label) in labels.iter().enumerate() {
        members[label as usize].push(row as u32);
    }
    let mut judged = vec![false; labels.len()];
    for (class, mut members) in members.into_iter().enumerate() {
        let mut stream: ChaCha8Rng = order::stream(seed, order::Purpose::HeldOut, class as u64);
        order::shuffle(&mut stream, &mut members);
        let most = members.len().saturating_sub(1);
        let count = ((members.len() as f64 * share).round() as usize)
            .max(1)
            .min(most);
        members[..count]
            .iter()
            .for_each(|&row| judged[row as usize] = true);
    }
    let (judge, fit) = (0..labels.len() as u32).partition(|&row| judged[row as usize]);
    HeldOut { fit, judge }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balanced_set_stays_balanced_and_nothing_is_lost() {
        let labels: Vec<u32> = (0..200).map(|row| row % 4).collect();
        let HeldOut { fit, judge } = split(&labels, 4, 0.1, 7);
        let mut counts = [0; 4];
        judge
            .iter()
            .for_each(|&row| counts[labels[row as usize] as usize] += 1);
        assert_eq!(counts, [5; 4]);
        let mut all = [fit.clone(), judge.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<u32>>(), "disjoint and complete");
        assert_eq!(
            split(&labels, 4, 0.1, 7),
            HeldOut {
                fit,
                judge: judge.clone()
            }
        );
        assert_ne!(split(&labels, 4, 0.1, 8).judge, judge, "the seed chooses");
    }

    #[test]
    fn small_classes_keep_an_image_to_learn_from() {
        // Three images of class 0, one of class 1, none of class 2, two of class 3.
        let labels = [0, 0, 0, 1, 3, 3];
        let HeldOut { fit, judge } = split(&labels, 4, 0.1, 0);
        let judged: Vec<u32> = judge.iter().map(|&row| labels[row as usize]).collect();
        assert_eq!(judged, [0, 3]);
        assert_eq!(fit.len(), 4);
    }
}
