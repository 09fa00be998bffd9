//! The two directions in which features spread most.

use rayon::prelude::*;

/// Rounds of the power iteration; only a start for the map, so that an approximation will do.
const ROUNDS: usize = 60;

/// Coordinates of every row of `values` (row-major `[count, dim]`) along the first two principal components, by power
/// iteration from fixed vectors: the same rows give the same answer on any number of threads.
pub(crate) fn first_two(values: &[f32], dim: usize) -> Vec<[f64; 2]> {
    let count = values.len() / dim;
    let mut mean = vec![0.0; dim];
    for row in values.chunks_exact(dim) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(mean, &value)| *mean += f64::from(value) / count as f64);
    }
    let centred: Vec<f64> = (values.chunks_exact(dim))
        .flat_map(|row| {
            row.iter()
                .zip(&mean)
                .map(|(&value, mean)| f64::from(value) - mean)
        })
        .collect();
    // Fixed, without symmetry, and therefore hardly at a right angle to what is sought.
    let start = |turn: f64| -> Vec<f64> {
        (0..dim)
            .map(|place| (turn * (place + 1) as f64).cos() + 0.1)
            .collect()
    };
    let first = direction(&centred, dim, start(0.7), None);
    let second = direction(&centred, dim, start(1.9), Some(&first));
    (centred.par_chunks_exact(dim))
        .map(|row| [dot(row, &first), dot(row, &second)])
        .collect()
}

/// The unit vector in which the rows spread most, at a right angle to `other`; zeros where there is no spread.
fn direction(rows: &[f64], dim: usize, start: Vec<f64>, other: Option<&Vec<f64>>) -> Vec<f64> {
    let mut vector = start;
    for _ in 0..ROUNDS {
        let along: Vec<f64> = rows
            .par_chunks_exact(dim)
            .map(|row| dot(row, &vector))
            .collect();
        let mut next = vec![0.0; dim];
        for (row, along) in rows.chunks_exact(dim).zip(&along) {
            next.iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += along * value);
        }
        if let Some(other) = other {
            let share = dot(&next, other);
            next.iter_mut()
                .zip(other)
                .for_each(|(value, other)| *value -= share * other);
        }
        let length = dot(&next, &next).sqrt();
        if length < 1e-30 {
            return vec![0.0; dim];
        }
        next.iter_mut().for_each(|value| *value /= length);
        vector = next;
    }
    vector
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_two_axes_keep_their_coordinates() {
        // Spread 3 along (0.6, 0.8, 0) and 1 along the third axis, around (5, 5, 5).
        let points = [(3.0, 0.0), (-3.0, 0.0), (0.0, 1.0), (0.0, -1.0f32)];
        let values: Vec<f32> = (points.iter())
            .flat_map(|(a, b)| [5.0 + 0.6 * a, 5.0 + 0.8 * a, 5.0 + b])
            .collect();
        let found = first_two(&values, 3);
        let sign = [found[0][0].signum(), found[2][1].signum()];
        for (found, (a, b)) in found.iter().zip(points) {
            assert!(
                (found[0] * sign[0] - f64::from(a)).abs() < 1e-5,
                "{found:?}"
            );
            assert!(
                (found[1] * sign[1] - f64::from(b)).abs() < 1e-5,
                "{found:?}"
            );
        }
        assert_eq!(first_two(&[1.0; 6], 3), [[0.0; 2]; 2]);
    }
}
