//! How embeddings lie on the sphere: alignment, uniformity, effective rank and deviation.

use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use crate::product::{Matrix, multiply};

/// Rows that uniformity and effective rank look at, at most: the pairs of more would cost as much as a training step.
const MOST_ROWS: usize = 1024;

/// Figures about the embeddings of a batch; a collapsed encoder shows in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Mean squared distance of query and positive key, 0 to 4 for unit vectors; small is good (Wang and Isola, arXiv
    /// 2005.10242, equation 6, exponent 2).
    pub alignment: f64,
    /// `ln` of the mean of `exp(-2 |x - y|²)` over all pairs of queries, 0 for a collapsed encoder, about -4 for points that
    /// are spread evenly (the same, equation 8, t = 2).
    pub uniformity: f64,
    /// `exp` of the entropy of the singular values of the queries, not centred: 1 for one direction, at most the smaller of
    /// rows and dimensions (Roy and Vetterli, "The effective rank", 2007).
    pub effective_rank: f64,
    /// What the effective rank can be at most: the smaller of rows and dimensions.
    #[serde(skip)]
    pub most_rank: f64,
    /// Mean over the dimensions of the standard deviation of the queries, times the root of the number of dimensions: 0 for
    /// a single point, 1 for points that are spread evenly (Chen and He, arXiv 2011.10566, section 4.1).
    #[serde(rename = "embedding_deviation", default)]
    pub deviation: f64,
}

impl Geometry {
    /// The geometry of `queries` and their positive `keys`, row-major `[N, dim]` each, N at least 2. Uniformity and
    /// effective rank are those of the first 1,024 queries.
    ///
    /// # Panics
    /// If the two differ in length or hold fewer than two rows.
    pub fn of(queries: &[f32], keys: &[f32], dim: usize) -> Self {
        assert_eq!(queries.len(), keys.len(), "a key for every query");
        assert!(dim > 0 && queries.len() >= 2 * dim, "two rows or more");
        let some = &queries[..queries.len().min(MOST_ROWS * dim)];
        Self {
            alignment: alignment(queries, keys, dim),
            uniformity: uniformity(some, dim),
            effective_rank: effective_rank(some, dim),
            most_rank: (some.len() / dim).min(dim) as f64,
            deviation: deviation(some, dim),
        }
    }
}

fn alignment(queries: &[f32], keys: &[f32], dim: usize) -> f64 {
    let squares = queries
        .iter()
        .zip(keys)
        .map(|(q, k)| (f64::from(*q) - f64::from(*k)).powi(2));
    squares.sum::<f64>() / (queries.len() / dim) as f64
}

fn deviation(rows: &[f32], dim: usize) -> f64 {
    let count = (rows.len() / dim) as f64;
    let mut sums = vec![[0f64; 2]; dim];
    for row in rows.chunks_exact(dim) {
        for ([sum, squares], value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
            *squares += f64::from(*value).powi(2);
        }
    }
    let deviations = sums.iter().map(|[sum, squares]| {
        let mean = sum / count;
        (squares / count - mean * mean).max(0.0).sqrt()
    });
    deviations.sum::<f64>() / (dim as f64).sqrt()
}

fn uniformity(rows: &[f32], dim: usize) -> f64 {
    let count = rows.len() / dim;
    let products = gram(rows, count, dim);
    let mut sum = 0.0;
    for i in 0..count {
        for j in 0..i {
            let [ii, jj, ij] =
                [(i, i), (j, j), (i, j)].map(|(a, b)| f64::from(products[a * count + b]));
            sum += (-2.0 * (ii + jj - 2.0 * ij)).exp();
        }
    }
    (sum / (count * (count - 1) / 2) as f64).ln()
}

/// Products of all pairs of rows, `[count, count]`.
fn gram(rows: &[f32], count: usize, dim: usize) -> Vec<f32> {
    let mut products = vec![0.0; count * count];
    let matrix = Matrix::new(rows, count, dim, dim);
    multiply(&mut products, matrix, matrix.transposed());
    products
}

fn effective_rank(rows: &[f32], dim: usize) -> f64 {
    let count = rows.len() / dim;
    // Both products have the squares of the singular values for eigenvalues; the smaller one has fewer zeros.
    let side = count.min(dim);
    let products = if side == count {
        gram(rows, count, dim)
    } else {
        let mut products = vec![0.0; dim * dim];
        let matrix = Matrix::new(rows, count, dim, dim);
        multiply(&mut products, matrix.transposed(), matrix);
        products
    };
    let products =
        DMatrix::from_iterator(side, side, products.iter().map(|&value| f64::from(value)));
    let singular: Vec<f64> = products
        .symmetric_eigenvalues()
        .iter()
        .map(|value| value.max(0.0).sqrt())
        .collect();
    let sum: f64 = singular.iter().sum();
    if sum <= 0.0 {
        return 0.0;
    }
    let shares = singular
        .iter()
        .map(|value| value / sum)
        .filter(|share| *share > 0.0);
    (-shares.map(|share| share * share.ln()).sum::<f64>()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the unit matrix, `count` of them, in turn.
    fn axes(count: usize, dim: usize) -> Vec<f32> {
        (0..count * dim)
            .map(|place| f32::from(u8::from(place % dim == (place / dim) % dim)))
            .collect()
    }

    #[test]
    fn a_collapsed_encoder_has_rank_one_and_no_uniformity() {
        let rows = [0.6f32, 0.8].repeat(10);
        let found = Geometry::of(&rows, &rows, 2);
        assert_eq!((found.alignment, found.uniformity), (0.0, 0.0));
        // Rounding of f32 leaves a second singular value of about 1e-4 of the first.
        assert!((found.effective_rank - 1.0).abs() < 5e-3, "{found:?}");
        assert!(found.deviation < 1e-7, "{found:?}");
    }

    #[test]
    fn points_spread_evenly_have_a_deviation_of_one_and_fewer_dimensions_less() {
        // Both signs of every axis: in each of 4 dimensions two of eight values are 1 and -1.
        let mut rows = axes(4, 4);
        rows.extend(axes(4, 4).iter().map(|value| -value).collect::<Vec<_>>());
        let found = Geometry::of(&rows, &rows, 4);
        assert!((found.deviation - 1.0).abs() < 1e-12, "{found:?}");
        assert_eq!(found.most_rank, 4.0);
        // Two points on one of 4 axes: a deviation of 1 there and of 0 elsewhere.
        let line = [1.0f32, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0];
        assert!((Geometry::of(&line, &line, 4).deviation - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_axes_have_full_rank_and_known_distances() {
        // Four axes, each twice: of 28 pairs 4 are equal and 24 lie at a squared distance of 2.
        let rows = axes(8, 4);
        let opposite: Vec<f32> = rows.iter().map(|value| -value).collect();
        let found = Geometry::of(&rows, &opposite, 4);
        assert!((found.alignment - 4.0).abs() < 1e-12);
        let uniformity = ((4.0 + 24.0 * (-4.0f64).exp()) / 28.0).ln();
        assert!((found.uniformity - uniformity).abs() < 1e-6, "{found:?}");
        assert!((found.effective_rank - 4.0).abs() < 1e-6, "{found:?}");
        // Fewer rows than dimensions: the other product.
        assert!((Geometry::of(&axes(3, 5), &axes(3, 5), 5).effective_rank - 3.0).abs() < 1e-6);
    }

    #[test]
    fn unequal_singular_values_give_the_entropy_by_hand() {
        // Singular values 2 and 1: shares 2/3 and 1/3.
        let rows = [2.0f32, 0.0, 0.0, 1.0];
        let found = Geometry::of(&rows, &rows, 2).effective_rank;
        let (a, b) = (2.0f64 / 3.0, 1.0f64 / 3.0);
        assert!(
            (found - (-(a * a.ln() + b * b.ln())).exp()).abs() < 1e-9,
            "{found}"
        );
        assert_eq!(Geometry::of(&[0.0; 4], &[0.0; 4], 2).effective_rank, 0.0);
    }
}
