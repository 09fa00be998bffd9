//! The stored reference values, `tests/data/eqco_vectors.json`: float64 results of an independent
//! implementation, cross-checked with 60 digits. The file describes its own construction.

use std::sync::LazyLock;

use serde_json::Value;

static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../data/eqco_vectors.json")).expect("the stored values")
});

/// A section of the file by name.
pub fn section(name: &str) -> &'static Value {
    &VECTORS[name]
}

pub fn number(case: &Value, key: &str) -> f64 {
    case[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{}: no number {key}", case["name"]))
}

pub fn count(case: &Value, key: &str) -> usize {
    number(case, key) as usize
}

/// All numbers of a vector or matrix, row by row.
pub fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        item => vec![item.as_f64().expect("a number")],
    }
}

/// Element `index` of the stored construction: the splitmix64 hash as a number in [-1, 1).
pub fn hashed(index: u64) -> f64 {
    let mut z = (index.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 11) as f64 * 2f64.powi(-52) - 1.0
}

/// Row `row` of table `table` as a unit vector of `dim` values.
pub fn hashed_unit(table: u64, row: u64, dim: u64) -> Vec<f64> {
    unit(
        (0..dim)
            .map(|j| hashed((table << 40) + (row << 12) + j))
            .collect(),
    )
}

pub fn unit(mut row: Vec<f64>) -> Vec<f64> {
    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
    row.iter_mut().for_each(|x| *x /= norm);
    row
}

/// The hashed construction in dimension 128: query, positive key and 65,536 negatives.
pub struct Hashed {
    pub query: Vec<f64>,
    pub positive: Vec<f64>,
    pub negatives: Vec<f64>,
}

pub const HASHED_DIM: usize = 128;

pub static HASHED: LazyLock<Hashed> = LazyLock::new(|| {
    let dim = HASHED_DIM as u64;
    let query = hashed_unit(1, 0, dim);
    let noise = hashed_unit(2, 0, dim);
    let mixed = query
        .iter()
        .zip(&noise)
        .map(|(q, n)| 0.9 * q + 0.3 * n)
        .collect();
    let negatives = (0..65536)
        .flat_map(|row| hashed_unit(3, row, dim))
        .collect();
    Hashed {
        positive: unit(mixed),
        query,
        negatives,
    }
});

#[test]
fn the_hash_is_the_stored_one() {
    let check = section("hash_check");
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} is not {b}");
    for (index, key) in ["u0", "u1", "u2"].into_iter().enumerate() {
        close(hashed(index as u64), number(check, key));
    }
    let rows = [
        (&HASHED.query[..], "q_first4"),
        (&HASHED.positive[..], "k0_first4"),
        (&HASHED.negatives[..], "k1_first4"),
    ];
    for (row, key) in rows {
        row.iter()
            .zip(numbers(&check[key]))
            .for_each(|(&a, b)| close(a, b));
    }
    let last = &HASHED.negatives[65535 * HASHED_DIM..];
    let cosine: f64 = HASHED.query.iter().zip(last).map(|(q, k)| q * k).sum();
    close(cosine, number(check, "cos_q_k65536"));
}
