//! Stored values and how results are compared with them.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use candle_core::{Device, Result, Tensor};

use crate::hashed::hashed_values;

/// A folder of this crate's tests.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// Scalar products that stand for a large tensor.
const PROJECTIONS: usize = 4;

/// One file of `python/golden_ops.py`.
pub struct Golden {
    tensors: HashMap<String, Tensor>,
    compared: RefCell<BTreeSet<String>>,
}

impl Golden {
    pub fn load(file: &str) -> Result<Self> {
        let path = Path::new(FOLDER).join(format!("{file}.safetensors"));
        Ok(Self {
            tensors: candle_core::safetensors::load(path, &Device::Cpu)?,
            compared: RefCell::default(),
        })
    }

    /// Asserts that `found` is the stored tensor `name`, element by element or, where only scalar products with hashed
    /// vectors are stored, through those.
    ///
    /// `tolerance` bounds the largest difference relative to the largest stored value, and that of a scalar product relative to the Euclidean norm of `found`.
    pub fn check(&self, name: &str, found: &Tensor, tolerance: f64) -> Result<()> {
        match self.tensors.get(name) {
            Some(stored) => {
                assert_eq!(stored.dims(), found.dims(), "shape of {name}");
                let error = largest_relative_error(&values(found)?, &values(stored)?);
                self.accept(name, error, tolerance);
                Ok(())
            }
            None => self.check_projected(name, name, found, tolerance),
        }
    }

    /// Asserts the scalar products of `found` with the vectors drawn under `vectors`, stored under `name`.
    pub fn check_projected(
        &self,
        name: &str,
        vectors: &str,
        found: &Tensor,
        tolerance: f64,
    ) -> Result<()> {
        let name = format!("{name}.projected");
        let Some(stored) = self.tensors.get(&name) else {
            panic!("nothing is stored under {name}")
        };
        let found = values(found)?;
        let vectors = hashed_values(
            &format!("{vectors}.projected"),
            PROJECTIONS * found.len(),
            -1.0,
            1.0,
        );
        let norm = found.iter().map(|v| v * v).sum::<f64>().sqrt();
        let error = vectors
            .chunks_exact(found.len())
            .zip(values(stored)?)
            .map(|(vector, stored)| (dot(vector, &found) - stored).abs() / norm)
            .fold(0.0, larger);
        self.accept(&name, error, tolerance);
        Ok(())
    }

    /// Asserts that every stored tensor has been compared: a case without a test would be no test.
    pub fn assert_all_compared(&self) {
        let stored: BTreeSet<String> = self.tensors.keys().cloned().collect();
        assert_eq!(stored, *self.compared.borrow());
    }

    fn accept(&self, name: &str, error: f64, tolerance: f64) {
        println!("{name}: relative error {error:.1e} of {tolerance:.0e}");
        assert!(
            error <= tolerance,
            "{name}: relative error {error:e} exceeds {tolerance:e}"
        );
        self.compared.borrow_mut().insert(name.to_string());
    }
}

/// All elements, in f64.
pub fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    let flat = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(flat.into_iter().map(f64::from).collect())
}

/// The bits of all elements, for comparisons that allow no difference.
pub fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    let flat = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(flat.into_iter().map(f32::to_bits).collect())
}

/// max |found − expected| / max |expected|; NaN when anything is.
pub fn largest_relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().map(|v| v.abs()).fold(0.0, larger);
    let difference = found
        .iter()
        .zip(expected)
        .map(|(f, e)| (f - e).abs())
        .fold(0.0, larger);
    difference / largest.max(f64::MIN_POSITIVE)
}

/// Σ vector·values, in f64.
pub fn dot(vector: &[f32], values: &[f64]) -> f64 {
    vector
        .iter()
        .zip(values)
        .map(|(a, b)| f64::from(*a) * b)
        .sum()
}

/// The larger of two values, or NaN if one is: `f64::max` would hide it.
fn larger(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}
