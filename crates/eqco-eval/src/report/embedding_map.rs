//! A map of the representation in two dimensions: exact t-SNE (van der Maaten and Hinton 2008).

use bhtsne::tSNE;
use rayon::ThreadPoolBuilder;

use super::principal_components::first_two;
use crate::{EvalError, Features};

/// Neighbours that a point looks at, in the sense of the paper's perplexity.
pub(crate) const PERPLEXITY: f32 = 30.0;
const ITERATIONS: usize = 750;
/// Deviation of the start along its first axis, as in the paper's code.
const START: f64 = 1e-4;

/// Coordinates of `rows` of the features, by cosine distance. Needs at least 4 rows for a map; of fewer the principal
/// components are given.
///
/// The start is the first two principal components, which keeps the large structure (Kobak and Berens 2019), and all runs
/// on one thread, where sums have one order: the same features give the same map.
pub(crate) fn embedding_map(
    features: &Features,
    rows: &[usize],
) -> Result<Vec<[f64; 2]>, EvalError> {
    let dim = features.dim();
    let units: Vec<f32> = rows
        .iter()
        .flat_map(|&row| unit(features.row(row)))
        .collect();
    let start = first_two(&units, dim);
    if rows.len() < 4 {
        return Ok(start);
    }
    let squares = start.iter().map(|point| point[0].powi(2)).sum::<f64>();
    let factor = START / (squares / rows.len() as f64).sqrt().max(1e-30);
    let start: Vec<f32> = start
        .iter()
        .flatten()
        .map(|value| (value * factor) as f32)
        .collect();
    let samples: Vec<&[f32]> = units.chunks_exact(dim).collect();
    let one_thread = ThreadPoolBuilder::new().num_threads(1).build();
    let one_thread = one_thread.map_err(|error| EvalError::Thread {
        reason: error.to_string(),
    })?;
    let map = one_thread.install(|| {
        let mut map: tSNE<'_, f32, &[f32]> = tSNE::new(&samples);
        map.perplexity(PERPLEXITY.min((rows.len() - 1) as f32 / 3.0))
            .epochs(ITERATIONS)
            .initial_embedding(start)
            .exact(|a, b| {
                let product: f32 = a.iter().zip(b.iter()).map(|(a, b)| a * b).sum();
                // Of unit vectors; its square is not below zero but for rounding.
                (2.0 - 2.0 * product).max(0.0).sqrt()
            });
        map.embedding()
    });
    let (points, _) = map.as_chunks::<2>();
    Ok(points.iter().map(|point| point.map(f64::from)).collect())
}

/// A row of length 1; zeros stay.
fn unit(row: &[f32]) -> Vec<f32> {
    let squares: f64 = row.iter().map(|&value| f64::from(value).powi(2)).sum();
    let length = squares.sqrt().max(1e-30);
    row.iter()
        .map(|&value| (f64::from(value) / length) as f32)
        .collect()
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
    fn clouds_stay_apart_and_the_map_is_the_same_on_any_threads() {
        let (features, rows) = (clouds(60), (0..60).collect::<Vec<_>>());
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| embedding_map(&features, &rows).unwrap())
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
        assert_eq!(embedding_map(&features, &[0, 1]).unwrap().len(), 2);
    }
}
