//! Inputs that several themes use, and comparison of results.

use candle_core::{DType, Device, Tensor};
use eqco_core::reference::{QueryLoss, query_loss};
use eqco_core::{Alpha, LossConfig};

use crate::vector_file::hashed_unit;

/// `[rows, dim]` unit rows, the same for the same table number.
pub fn unit_rows(table: u64, rows: usize, dim: usize) -> Vec<f32> {
    let rows = (0..rows as u64).flat_map(|row| hashed_unit(table, row, dim as u64));
    rows.map(|x| x as f32).collect()
}

/// [`unit_rows`] as a tensor.
pub fn unit_tensor(table: u64, rows: usize, dim: usize) -> Tensor {
    matrix(&unit_rows(table, rows, dim), dim)
}

/// Row-major values as a `[_, dim]` tensor.
pub fn matrix(values: &[f32], dim: usize) -> Tensor {
    Tensor::from_slice(values, (values.len() / dim, dim), &Device::Cpu).expect("whole rows")
}

pub fn config(temperature: f64, alpha: Alpha) -> LossConfig {
    LossConfig { temperature, alpha }
}

/// All values of a tensor of any element type, row by row.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    let wide = tensor.to_dtype(DType::F64).expect("a float tensor");
    wide.flatten_all()
        .and_then(|t| t.to_vec1())
        .expect("values")
}

/// The reference for every query of a batch with its own negatives (key rows, by index).
pub fn reference_rows(
    queries: &Tensor,
    keys: &Tensor,
    negatives: impl Fn(usize) -> Vec<f64>,
    config: &LossConfig,
) -> Vec<QueryLoss> {
    let dim = queries.dim(1).expect("a matrix");
    let (queries, keys) = (values(queries), values(keys));
    let rows = queries
        .chunks_exact(dim)
        .zip(keys.chunks_exact(dim))
        .enumerate();
    rows.map(|(i, (q, k))| query_loss(q, k, &negatives(i), config).expect("valid rows"))
        .collect()
}

/// Mean loss of a batch of references.
pub fn mean_loss(rows: &[QueryLoss]) -> f64 {
    rows.iter().map(|row| row.loss).sum::<f64>() / rows.len() as f64
}

/// Asserts that every entry differs by no more than `tolerance` times the largest expected entry
/// (or by `tolerance` itself when all are tiny).
pub fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let allowed = tolerance * if largest > 0.0 { largest } else { 1.0 };
    for (index, (g, e)) in got.iter().zip(expected).enumerate() {
        let error = (g - e).abs();
        assert!(
            error <= allowed,
            "{what}[{index}]: got {g}, expected {e}, off by {error:e}"
        );
    }
}
