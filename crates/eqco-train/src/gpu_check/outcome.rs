//! What a part of the check found. It travels as JSON from the process that ran the part to the one that prints the table.

use serde::{Deserialize, Serialize};

use super::kernels::Comparison;

/// Everything that one part found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Numbers that were compared.
    pub checks: Vec<Check>,
    /// What was timed.
    pub measurements: Vec<Measurement>,
    /// What was timed in turns with PyTorch.
    pub comparisons: Vec<PeerComparison>,
    /// What a reader must know, such as what was left out.
    pub notes: Vec<String>,
    /// What ended the part before its end.
    pub error: Option<String>,
}

/// One comparison of numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What was compared.
    pub name: String,
    /// Whether it is within its bound.
    pub passed: bool,
    /// How far the furthest quantity was; `None` for what is not a number, or was not computed.
    pub distance: Option<f64>,
    /// How far it may be.
    pub bound: f64,
    /// Which quantity was furthest, or why there is none.
    pub detail: String,
}

/// The time of one operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Operation, direction and shape.
    pub name: String,
    /// Of one call.
    pub milliseconds: f64,
    /// What one call does, and so which ceiling is above it.
    pub work: Work,
}

/// What limits an operation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Bytes read and written, each pass over an array counted.
    Bytes(u64),
    /// Multiplications and additions on bf16.
    FlopsInBf16(u64),
    /// Multiplications and additions on f32.
    FlopsInF32(u64),
    /// Bytes that come from host memory.
    HostBytes(u64),
    /// Images of a training step.
    Images(u64),
}

/// Ours and PyTorch's, timed in turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerComparison {
    /// What was computed.
    pub workload: String,
    /// How PyTorch computed it.
    pub variant: String,
    /// Version of PyTorch.
    pub version: String,
    /// What its first steps took, compilation included, in seconds.
    pub warm_up_seconds: f64,
    /// Median of ours, in milliseconds.
    pub our_milliseconds: f64,
    /// Median of PyTorch's, in milliseconds.
    pub their_milliseconds: f64,
    /// PyTorch's time over ours: the median over its rounds, each beside the rounds of ours before and after it.
    pub speedup: f64,
    /// The most memory of the device that our tensors had at a time; `None` where nobody tells.
    pub our_peak_bytes: Option<u64>,
    /// The same of PyTorch.
    pub their_peak_bytes: Option<u64>,
}

impl Outcome {
    /// A part that was not run, or not to its end.
    pub fn broken(error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::default()
        }
    }

    /// Whether the part came to its end, and all numbers are within their bounds.
    pub fn passed(&self) -> bool {
        self.error.is_none() && self.checks.iter().all(|check| check.passed)
    }
}

impl Check {
    /// What a comparison found.
    pub fn of(name: String, comparison: &Comparison) -> Self {
        Self {
            name,
            passed: comparison.passed(),
            distance: finite(comparison.distance),
            bound: comparison.bound,
            detail: comparison.quantity.clone(),
        }
    }

    /// A comparison that could not be made.
    pub fn failed(name: String, reason: String) -> Self {
        Self {
            name,
            passed: false,
            distance: None,
            bound: 0.0,
            detail: reason,
        }
    }

    /// The distance in units of the bound; infinite for what failed without one.
    pub fn ratio(&self) -> f64 {
        match self.distance {
            Some(0.0) => 0.0,
            Some(distance) => distance / self.bound,
            None => f64::INFINITY,
        }
    }
}

impl Measurement {
    /// Units of work a second: bytes, operations or images.
    pub fn rate(&self) -> f64 {
        let (Work::Bytes(amount)
        | Work::FlopsInBf16(amount)
        | Work::FlopsInF32(amount)
        | Work::HostBytes(amount)
        | Work::Images(amount)) = self.work;
        1e3 * amount as f64 / self.milliseconds
    }
}

/// JSON has no other numbers.
pub(super) fn finite(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(distance: f64) -> Comparison {
        Comparison {
            quantity: "output".to_owned(),
            distance,
            bound: 0.5,
        }
    }

    #[test]
    fn a_nan_and_a_part_without_an_end_do_not_pass() {
        let outcome = |distances: &[f64]| Outcome {
            checks: distances
                .iter()
                .map(|distance| Check::of("a".to_owned(), &comparison(*distance)))
                .collect(),
            ..Outcome::default()
        };
        assert!(outcome(&[0.0, 0.5]).passed());
        assert!(!outcome(&[0.0, 0.6]).passed());
        assert!(!outcome(&[f64::NAN]).passed());
        assert!(!Outcome::broken("lost").passed());
        let failed = Check::failed("a".to_owned(), "refused".to_owned());
        assert!(!failed.passed && failed.ratio().is_infinite());
    }

    #[test]
    fn an_outcome_survives_its_way_through_json() -> serde_json::Result<()> {
        let outcome = Outcome {
            checks: vec![
                Check::of("a".to_owned(), &comparison(f64::NAN)),
                Check::of("b".to_owned(), &comparison(0.1)),
            ],
            measurements: vec![Measurement {
                name: "copy".to_owned(),
                milliseconds: 2.0,
                work: Work::Bytes(4_000_000),
            }],
            comparisons: vec![PeerComparison {
                workload: "step".to_owned(),
                variant: "eager".to_owned(),
                version: "2.15.0".to_owned(),
                warm_up_seconds: 8.0,
                our_milliseconds: 1.0,
                their_milliseconds: 1.5,
                speedup: 1.5,
                our_peak_bytes: None,
                their_peak_bytes: Some(7),
            }],
            notes: vec!["left out".to_owned()],
            error: Some("ended".to_owned()),
        };
        let text = serde_json::to_string(&outcome)?;
        assert_eq!(serde_json::from_str::<Outcome>(&text)?, outcome);
        assert_eq!(outcome.measurements[0].rate(), 2e9);
        Ok(())
    }
}
