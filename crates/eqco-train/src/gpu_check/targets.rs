//! What is wanted of a GPU, and whether it was found. A target that is missed is no wrong number.

use serde::Serialize;

use super::outcome::{Measurement, Outcome, PeerComparison};
use super::part::Workload;
use super::speed::{BATCH_NORM, COPY, FUSED_LOSS, MATERIALISED_LOSS, UPDATES};

/// One target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// What should be how.
    pub name: &'static str,
    /// The least that is wanted, or the most.
    pub wanted: Wanted,
    /// What was found; `None` when it was not measured.
    pub found: Option<f64>,
}

/// Which side of a number is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

impl Target {
    /// Whether it is met; `None` when it was not measured.
    pub fn is_met(&self) -> Option<bool> {
        self.found.map(|found| match self.wanted {
            Wanted::AtLeast(wanted) => found >= wanted,
            Wanted::AtMost(wanted) => found <= wanted,
        })
    }
}

/// All targets, with what `outcomes` hold of them.
pub fn targets(outcomes: &[&Outcome]) -> Vec<Target> {
    let found = Found(outcomes);
    vec![
        Target {
            name: "ResNet-50 step over PyTorch's best",
            wanted: Wanted::AtLeast(1.1),
            found: found.over_best(Workload::ResNet50),
        },
        Target {
            name: "SiMo step over PyTorch's best",
            wanted: Wanted::AtLeast(1.2),
            found: found.over_best(Workload::Simo),
        },
        Target {
            name: "loss over PyTorch's best with all logits",
            wanted: Wanted::AtLeast(3.0),
            found: found.over_best(Workload::Loss),
        },
        Target {
            name: "loss over candle's with all logits",
            wanted: Wanted::AtLeast(3.0),
            found: found.quotient(MATERIALISED_LOSS, FUSED_LOSS),
        },
        Target {
            name: "batch norm + ReLU backward, of copies",
            wanted: Wanted::AtLeast(0.8),
            found: found.of_copies(&format!("{BATCH_NORM} backward")),
        },
        Target {
            name: "optimiser + momentum encoder, of copies",
            wanted: Wanted::AtLeast(0.8),
            found: found.of_copies(UPDATES),
        },
        Target {
            name: "peak memory, ResNet-50 step, of PyTorch's least",
            wanted: Wanted::AtMost(1.0),
            found: found.memory(Workload::ResNet50),
        },
        Target {
            name: "peak memory, SiMo step, of PyTorch's least",
            wanted: Wanted::AtMost(1.0),
            found: found.memory(Workload::Simo),
        },
    ]
}

struct Found<'a>(&'a [&'a Outcome]);

impl Found<'_> {
    fn measurement(&self, name: &str) -> Option<&Measurement> {
        let mut all = self.0.iter().flat_map(|outcome| &outcome.measurements);
        all.find(|measurement| measurement.name == name)
    }

    fn comparisons(&self, workload: Workload) -> impl Iterator<Item = &PeerComparison> {
        let all = self.0.iter().flat_map(|outcome| &outcome.comparisons);
        all.filter(move |comparison| comparison.workload == workload.name())
    }

    /// Against the variant that leaves us the least.
    fn over_best(&self, workload: Workload) -> Option<f64> {
        let speedups = self.comparisons(workload).map(|c| c.speedup);
        speedups.min_by(f64::total_cmp)
    }

    fn quotient(&self, over: &str, under: &str) -> Option<f64> {
        let time = |name| self.measurement(name).map(|m| m.milliseconds);
        Some(time(over)? / time(under)?)
    }

    fn of_copies(&self, name: &str) -> Option<f64> {
        Some(self.measurement(name)?.rate() / self.measurement(COPY)?.rate())
    }

    fn memory(&self, workload: Workload) -> Option<f64> {
        let shares = self.comparisons(workload).filter_map(|comparison| {
            Some(comparison.our_peak_bytes? as f64 / comparison.their_peak_bytes? as f64)
        });
        shares.max_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu_check::outcome::Work;

    fn comparison(variant: &str, speedup: f64, theirs: Option<u64>) -> PeerComparison {
        PeerComparison {
            workload: "resnet50".to_owned(),
            variant: variant.to_owned(),
            version: "2.15.0".to_owned(),
            warm_up_seconds: 8.0,
            our_milliseconds: 100.0,
            their_milliseconds: 100.0 * speedup,
            speedup,
            our_peak_bytes: Some(20),
            their_peak_bytes: theirs,
        }
    }

    fn measurement(name: &str, milliseconds: f64) -> Measurement {
        Measurement {
            name: name.to_owned(),
            milliseconds,
            work: Work::Bytes(1000),
        }
    }

    #[test]
    fn targets_are_measured_against_the_best_of_pytorch_and_the_ceiling() {
        let outcome = Outcome {
            comparisons: vec![
                comparison("eager", 1.4, Some(25)),
                comparison("compile", 1.05, Some(16)),
            ],
            ..Outcome::default()
        };
        let speed = Outcome {
            measurements: vec![
                measurement(COPY, 1.0),
                measurement(&format!("{BATCH_NORM} backward"), 1.25),
                measurement(UPDATES, 1.3),
                measurement(FUSED_LOSS, 2.0),
                measurement(MATERIALISED_LOSS, 7.0),
            ],
            ..Outcome::default()
        };
        let targets = targets(&[&outcome, &speed]);
        let found: Vec<Option<f64>> = targets.iter().map(|target| target.found).collect();
        let expected = [
            Some(1.05),
            None,
            None,
            Some(3.5),
            Some(0.8),
            Some(1.0 / 1.3),
            Some(1.25),
            None,
        ];
        for (found, expected) in found.iter().zip(expected) {
            match (found, expected) {
                (Some(a), Some(b)) => assert!((a - b).abs() < 1e-9, "{a}, expected {b}"),
                (a, b) => assert_eq!(*a, b),
            }
        }
        let met: Vec<Option<bool>> = targets.iter().map(Target::is_met).collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(met, [no, None, None, yes, yes, no, no, None]);
    }
}
