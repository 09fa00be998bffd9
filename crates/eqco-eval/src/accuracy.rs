//! Share of right predictions.

use serde::{Deserialize, Serialize};

/// Top-1 accuracy in percent (0 to 100).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Right predictions among all, in percent.
    pub top1: f64,
    /// The same within each class, in the order of the labels; `None` for a class without images.
    pub per_class_top1: Vec<Option<f64>>,
}

impl Accuracy {
    /// Compares predictions with labels (same length, at least one, all below `class_count`).
    pub(crate) fn of(predictions: &[u32], labels: &[u32], class_count: usize) -> Self {
        let mut right = vec![0usize; class_count];
        let mut all = vec![0usize; class_count];
        for (prediction, &label) in predictions.iter().zip(labels) {
            right[label as usize] += usize::from(*prediction == label);
            all[label as usize] += 1;
        }
        let per_class_top1 = (right.iter().zip(&all))
            .map(|(&right, &all)| (all > 0).then(|| percent(right, all)))
            .collect();
        Self {
            top1: percent(right.iter().sum(), labels.len()),
            per_class_top1,
        }
    }
}

/// How often each class was taken for each: `[class][prediction]` counts images. Predictions and labels (same length) are
/// below `class_count`.
pub(crate) fn confusion(
    predictions: &[u32],
    labels: &[u32],
    class_count: usize,
) -> Vec<Vec<usize>> {
    let mut counts = vec![vec![0; class_count]; class_count];
    for (&prediction, &label) in predictions.iter().zip(labels) {
        counts[label as usize][prediction as usize] += 1;
    }
    counts
}

/// `part` of `whole` in percent.
pub(crate) fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// Index of the largest score; the first of equals. Scores that are not numbers never win, and if
/// there is nothing else the answer is 0.
pub(crate) fn first_largest<Score: PartialOrd + Copy>(scores: &[Score]) -> u32 {
    let mut best: Option<usize> = None;
    for (index, score) in scores.iter().enumerate() {
        #[allow(clippy::eq_op)] // true for NaN alone
        let comparable = score == score;
        if comparable && best.is_none_or(|best| *score > scores[best]) {
            best = Some(index);
        }
    }
    best.unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_by_hand() {
        let accuracy = Accuracy::of(&[0, 1, 1, 0], &[0, 1, 0, 0], 3);
        assert_eq!(accuracy.top1, 75.0);
        assert_eq!(
            accuracy.per_class_top1,
            [Some(200.0 / 3.0), Some(100.0), None]
        );
    }

    #[test]
    fn confusion_by_hand() {
        let counts = confusion(&[0, 1, 1, 0], &[0, 1, 0, 0], 3);
        assert_eq!(counts, [[2, 1, 0], [0, 1, 0], [0, 0, 0]]);
    }

    #[test]
    fn first_of_equals_and_no_nan() {
        assert_eq!(first_largest(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(first_largest(&[f32::NAN, -1.0, f32::NAN]), 1);
        assert_eq!(first_largest(&[f64::NEG_INFINITY; 2]), 0);
        assert_eq!(first_largest(&[f32::NAN; 2]), 0);
    }
}
