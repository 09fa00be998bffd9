//! A map of the representation in two dimensions: exact t-SNE (van der Maaten and Hinton 2008).
//!
//! Written here because it has to give the same map every time: the crates for it draw their start from the system's
//! randomness, and Barnes-Hut's trees only pay above the 2,000 points that a picture can show. The start is the first two
//! principal components, which keeps the large structure (Kobak and Berens 2019), and nothing is random.

use rayon::prelude::*;

use super::principal_components::first_two;
use crate::Features;
use crate::product::{Matrix, multiply};

/// Neighbours that a point looks at, in the sense of the paper's perplexity.
pub(crate) const PERPLEXITY: f64 = 30.0;
const ITERATIONS: usize = 750;
/// Iterations in which attraction is exaggerated and momentum low, as in the paper's code.
const EARLY: usize = 250;
const EXAGGERATION: f32 = 12.0;

/// Coordinates of `rows` of the features, by cosine distance. The same features give the same map on any number of
/// threads. Needs at least 4 rows for a map; of fewer the principal components are given.
pub(crate) fn embedding_map(features: &Features, rows: &[usize]) -> Vec<[f64; 2]> {
    let dim = features.dim();
    let units: Vec<f32> = (rows.iter())
        .flat_map(|&row| {
            let row = features.row(row);
            let length = row
                .iter()
                .map(|&value| f64::from(value).powi(2))
                .sum::<f64>()
                .sqrt()
                .max(1e-30);
            row.iter()
                .map(move |&value| (f64::from(value) / length) as f32)
        })
        .collect();
    let start = first_two(&units, dim);
    if rows.len() < 4 {
        return start;
    }
    let affinities = affinities(&units, dim);
    let spread =
        (start.iter().map(|point| point[0].powi(2)).sum::<f64>() / rows.len() as f64).sqrt();
    let factor = 1e-4 / spread.max(1e-30);
    let points = start
        .iter()
        .map(|point| point.map(|value| (value * factor) as f32))
        .collect();
    descend(&affinities, points)
}

/// Symmetric affinities p of all pairs, row-major `[n, n]`; they add up to 1, p(i, i) is 0.
fn affinities(units: &[f32], dim: usize) -> Vec<f32> {
    let n = units.len() / dim;
    let perplexity = PERPLEXITY.min((n - 1) as f64 / 3.0);
    let bank = Matrix::new(units, n, dim, dim);
    let conditional: Vec<f32> = (0..n)
        .into_par_iter()
        .flat_map_iter(|row| {
            let mut similarities = vec![0.0; n];
            multiply(
                &mut similarities,
                Matrix::new(&units[row * dim..][..dim], 1, dim, dim),
                bank.transposed(),
            );
            // Squared distances of unit vectors, not below zero for rounding.
            let distances: Vec<f64> = similarities
                .iter()
                .map(|&cosine| (2.0 - 2.0 * f64::from(cosine)).max(0.0))
                .collect();
            conditional_row(&distances, row, perplexity)
        })
        .collect();
    let mut joint = vec![0.0; n * n];
    joint
        .par_chunks_mut(n)
        .enumerate()
        .for_each(|(row, target)| {
            for (column, value) in target.iter_mut().enumerate() {
                *value = (conditional[row * n + column] + conditional[column * n + row])
                    / (2 * n) as f32;
            }
        });
    joint
}

/// Gaussian weights of the others by squared distance, adding up to 1; the width is chosen by bisection so that their
/// entropy is ln(perplexity).
fn conditional_row(distances: &[f64], own: usize, perplexity: f64) -> Vec<f32> {
    let least = (distances.iter().enumerate())
        .filter(|(place, _)| *place != own)
        .fold(f64::INFINITY, |least, (_, &distance)| least.min(distance));
    let weights = |precision: f64| -> Vec<f64> {
        let weight = |(place, &distance): (usize, &f64)| match place == own {
            true => 0.0,
            // The least distance is taken off all: a common factor, without which all could round to 0.
            false => (-(distance - least) * precision).exp(),
        };
        distances.iter().enumerate().map(weight).collect()
    };
    let (mut low, mut high, mut precision) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..60 {
        let weights = weights(precision);
        let sum: f64 = weights.iter().sum();
        let mean: f64 = (weights.iter().zip(distances))
            .map(|(weight, distance)| weight * (distance - least))
            .sum::<f64>()
            / sum;
        let entropy = sum.ln() + precision * mean;
        if entropy > perplexity.ln() {
            low = precision;
            precision = if high.is_finite() {
                (low + high) / 2.0
            } else {
                precision * 2.0
            };
        } else {
            high = precision;
            precision = (low + high) / 2.0;
        }
    }
    let weights = weights(precision);
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| (weight / sum) as f32).collect()
}

/// Gradient descent with momentum and the adaptive gains of the paper's code.
fn descend(affinities: &[f32], mut points: Vec<[f32; 2]>) -> Vec<[f64; 2]> {
    let n = points.len();
    let rate = (n as f32 / EXAGGERATION / 4.0).max(50.0);
    let mut speed = vec![[0.0f32; 2]; n];
    let mut gains = vec![[1.0f32; 2]; n];
    for iteration in 0..ITERATIONS {
        let (exaggeration, momentum) = if iteration < EARLY {
            (EXAGGERATION, 0.5)
        } else {
            (1.0, 0.8)
        };
        let gradient = gradient(affinities, &points, exaggeration);
        for point in 0..n {
            for axis in 0..2 {
                let (slope, speed, gain) = (
                    gradient[point][axis],
                    &mut speed[point][axis],
                    &mut gains[point][axis],
                );
                *gain = if (slope > 0.0) == (*speed > 0.0) {
                    (*gain * 0.8).max(0.01)
                } else {
                    *gain + 0.2
                };
                *speed = momentum * *speed - rate * *gain * slope;
                points[point][axis] += *speed;
            }
        }
        let mean =
            [0, 1].map(|axis| points.iter().map(|point| point[axis]).sum::<f32>() / n as f32);
        points
            .iter_mut()
            .for_each(|point| (0..2).for_each(|axis| point[axis] -= mean[axis]));
    }
    points.iter().map(|point| point.map(f64::from)).collect()
}

/// Gradient of the divergence of both distributions of pairs with respect to every point.
fn gradient(affinities: &[f32], points: &[[f32; 2]], exaggeration: f32) -> Vec<[f32; 2]> {
    let n = points.len();
    let forces: Vec<Forces> = (0..n)
        .into_par_iter()
        .map(|row| Forces::of(&affinities[row * n..][..n], points, points[row]))
        .collect();
    // Every point was its own neighbour with weight 1.
    let total = forces
        .iter()
        .map(|force| f64::from(force.weight) - 1.0)
        .sum::<f64>()
        .max(1e-30) as f32;
    (forces.iter())
        .map(|force| {
            [0, 1].map(|axis| {
                4.0 * (exaggeration * force.attraction[axis] - force.repulsion[axis] / total)
            })
        })
        .collect()
}

/// Sums over all other points.
#[derive(Clone, Copy)]
struct Forces {
    attraction: [f32; 2],
    repulsion: [f32; 2],
    weight: f32,
}

impl Forces {
    /// In eight sums side by side, which the compiler turns into vectors; their order is fixed.
    fn of(affinities: &[f32], points: &[[f32; 2]], [x, y]: [f32; 2]) -> Self {
        const LANES: usize = 8;
        let mut sums = [[0.0f32; LANES]; 5];
        for (affinities, points) in affinities.chunks(LANES).zip(points.chunks(LANES)) {
            for (lane, (&affinity, point)) in affinities.iter().zip(points).enumerate() {
                let (dx, dy) = (x - point[0], y - point[1]);
                let weight = 1.0 / (1.0 + dx * dx + dy * dy);
                let (pull, push) = (affinity * weight, weight * weight);
                sums[0][lane] += pull * dx;
                sums[1][lane] += pull * dy;
                sums[2][lane] += push * dx;
                sums[3][lane] += push * dy;
                sums[4][lane] += weight;
            }
        }
        let [pull_x, pull_y, push_x, push_y, weight] = sums.map(|lanes| lanes.iter().sum::<f32>());
        Self {
            attraction: [pull_x, pull_y],
            repulsion: [push_x, push_y],
            weight,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    /// Two clouds around directions at a right angle.
    fn clouds(count: usize) -> Features {
        let rows = (0..count).flat_map(|row| {
            let (side, turn) = (row % 2, row as f32 * 0.37);
            let mut values = [
                0.1 * turn.sin(),
                0.1 * turn.cos(),
                0.1 * (2.3 * turn).sin(),
                0.0,
            ];
            values[side] += 1.0;
            values
        });
        let labels = (0..count as u32).map(|row| row % 2).collect();
        Features::new(
            Origin::new("clouds", "test", "by hand"),
            rows.collect(),
            4,
            labels,
            2,
        )
        .unwrap()
    }

    #[test]
    fn weights_have_the_wanted_perplexity() {
        let distances: Vec<f64> = (0..50).map(|place| 0.02 * f64::from(place)).collect();
        let weights = conditional_row(&distances, 0, 10.0);
        let entropy: f64 = (weights.iter().filter(|weight| **weight > 0.0))
            .map(|&weight| -f64::from(weight) * f64::from(weight).ln())
            .sum();
        assert!((entropy - 10f64.ln()).abs() < 1e-4, "{}", entropy.exp());
        assert_eq!(weights[0], 0.0);
        let joint = affinities(clouds(20).values(), 4);
        assert!((joint.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(joint[3 * 20 + 8], joint[8 * 20 + 3]);
    }

    #[test]
    fn the_gradient_is_that_of_the_divergence() {
        let features = clouds(11);
        let p = affinities(features.values(), 4);
        let points: Vec<[f32; 2]> = (0..11)
            .map(|i| [(i as f32 * 1.3).sin(), (i as f32 * 0.7).cos()])
            .collect();
        let divergence = |points: &[[f64; 2]]| -> f64 {
            let weight = |i: usize, j: usize| {
                1.0 / (1.0
                    + (points[i][0] - points[j][0]).powi(2)
                    + (points[i][1] - points[j][1]).powi(2))
            };
            let pairs =
                || (0..11).flat_map(|i| (0..11).filter(move |&j| j != i).map(move |j| (i, j)));
            let total: f64 = pairs().map(|(i, j)| weight(i, j)).sum();
            let term = |(i, j): (usize, usize)| {
                let p = f64::from(p[i * 11 + j]).max(1e-30);
                p * (p / (weight(i, j) / total)).ln()
            };
            pairs().map(term).sum()
        };
        let found = gradient(&p, &points, 1.0);
        let exact: Vec<[f64; 2]> = points.iter().map(|point| point.map(f64::from)).collect();
        for (point, axis) in [(0, 0), (4, 1), (10, 0)] {
            let moved = |by: f64| {
                let mut points = exact.clone();
                points[point][axis] += by;
                divergence(&points)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!(
                (f64::from(found[point][axis]) - slope).abs() < 1e-5,
                "{slope} {:?}",
                found[point]
            );
        }
    }

    #[test]
    fn clouds_stay_apart_and_the_map_is_the_same_on_any_threads() {
        let (features, rows) = (clouds(60), (0..60).collect::<Vec<_>>());
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| embedding_map(&features, &rows))
        };
        let map = on(1);
        assert_eq!(map, on(3));
        let distance = |a: usize, b: usize| (map[a][0] - map[b][0]).hypot(map[a][1] - map[b][1]);
        for row in 0..60 {
            let mut others: Vec<usize> = (0..60).filter(|&other| other != row).collect();
            others.sort_by(|&a, &b| distance(row, a).total_cmp(&distance(row, b)));
            assert!(
                others[..5].iter().all(|other| other % 2 == row % 2),
                "row {row}"
            );
        }
        assert_eq!(embedding_map(&features, &[0, 1]).len(), 2);
    }
}
