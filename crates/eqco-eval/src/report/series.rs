//! Thousands of steps as a few hundred points.

/// Points of a curve.
const MOST_POINTS: usize = 300;

/// Splits the range of x over all curves into at most 300 bins of equal width and gives the mean of x and of each value in
/// every bin that has points. A value that is not finite counts for nothing; where a bin has no other, it is NaN.
pub(crate) fn binned<const VALUES: usize>(
    points: &[(f64, [f64; VALUES])],
) -> Vec<(f64, [f64; VALUES])> {
    let (low, high) = points
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (x, _)| {
            (low.min(*x), high.max(*x))
        });
    let mut bins = vec![Bin::<VALUES>::default(); MOST_POINTS];
    for (x, values) in points {
        let share = if high > low {
            (x - low) / (high - low)
        } else {
            0.0
        };
        let bin = &mut bins[((share * MOST_POINTS as f64) as usize).min(MOST_POINTS - 1)];
        bin.x += x;
        bin.count += 1;
        for (value, (sum, count)) in values.iter().zip(&mut bin.sums) {
            if value.is_finite() {
                *sum += value;
                *count += 1;
            }
        }
    }
    let mean = |sum: f64, count: usize| {
        if count > 0 {
            sum / count as f64
        } else {
            f64::NAN
        }
    };
    (bins.iter())
        .filter(|bin| bin.count > 0)
        .map(|bin| {
            (
                mean(bin.x, bin.count),
                bin.sums.map(|(sum, count)| mean(sum, count)),
            )
        })
        .collect()
}

#[derive(Clone)]
struct Bin<const VALUES: usize> {
    x: f64,
    count: usize,
    sums: [(f64, usize); VALUES],
}

impl<const VALUES: usize> Default for Bin<VALUES> {
    fn default() -> Self {
        Self {
            x: 0.0,
            count: 0,
            sums: [(0.0, 0); VALUES],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_points_stay_and_repetitions_become_their_mean() {
        let points = [(0.0, [1.0]), (1.0, [2.0]), (0.0, [3.0]), (1.0, [f64::NAN])];
        assert_eq!(binned(&points), [(0.0, [2.0]), (1.0, [2.0])]);
        assert_eq!(binned::<1>(&[]), []);
        assert_eq!(binned(&[(7.0, [1.5])]), [(7.0, [1.5])]);
        assert!(binned(&[(7.0, [f64::NAN])])[0].1[0].is_nan());
    }

    #[test]
    fn many_points_become_means_of_their_bins() {
        let points: Vec<_> = (0..3_001)
            .map(|step| (f64::from(step), [f64::from(step) * 2.0]))
            .collect();
        let means = binned(&points);
        assert_eq!(means.len(), 300);
        assert_eq!(means[0], (4.5, [9.0]));
        // The last bin holds its upper end too.
        assert_eq!(means[299], (2_995.0, [5_990.0]));
    }
}
