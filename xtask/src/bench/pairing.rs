//! From single runs to one comparison.
//!
//! Machines change pace from minute to minute, so ours and the peer's runs alternate, and the ratio
//! is the median over neighbouring pairs rather than the ratio of two medians.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// What a benchmarked program prints as its last line.
#[derive(Debug, Clone, Deserialize)]
pub struct Measurement {
    pub seconds_per_step: f64,
    pub peak_memory_bytes: u64,
    pub threads: usize,
    pub family: String,
    pub precision: String,
}

/// One line of `--json`; `peer` and the ratios are null where there is no peer.
#[derive(Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What is computed.
    pub work: String,
    /// Number format of the arithmetic.
    pub precision: String,
    /// Our kernels.
    pub family: String,
    pub threads: usize,
    /// Our images per second: median over runs.
    pub ours: f64,
    /// The peer's images per second: median over runs.
    pub peer: Option<f64>,
    /// Ours over the peer's speed: median over pairs.
    pub ratio: Option<f64>,
    /// Ours over the peer's peak memory: median over pairs. Of the peer only what its steps took is
    /// counted, of ours the whole process.
    pub peak_memory_ratio: Option<f64>,
}

impl Measurement {
    /// Reads the last line of a program's output.
    pub fn parse(output: &str) -> Result<Self> {
        let last = output.lines().last().unwrap_or_default();
        let measurement: Self = serde_json::from_str(last)
            .with_context(|| format!("expected a measurement in JSON, got `{last}`"))?;
        ensure!(
            measurement.seconds_per_step > 0.0,
            "expected a positive time, got `{last}`"
        );
        Ok(measurement)
    }
}

/// Summarises the alternating runs of one work with `batch` images a step.
///
/// `peers` is empty, or as long as `ours`, which must not be empty.
pub fn compare(
    work: &str,
    batch: usize,
    ours: &[Measurement],
    peers: &[Measurement],
) -> Result<Comparison> {
    let first = ours.first().context("nothing was measured")?;
    let speed = |run: &Measurement| batch as f64 / run.seconds_per_step;
    let over_pairs = |ratio: fn(&Measurement, &Measurement) -> f64| {
        median(ours.iter().zip(peers).map(|(our, peer)| ratio(our, peer)))
    };
    Ok(Comparison {
        work: work.to_owned(),
        precision: first.precision.clone(),
        family: first.family.clone(),
        threads: first.threads,
        ours: median(ours.iter().map(speed)).unwrap_or_default(),
        peer: median(peers.iter().map(speed)),
        ratio: over_pairs(|our, peer| peer.seconds_per_step / our.seconds_per_step),
        peak_memory_ratio: over_pairs(|our, peer| {
            our.peak_memory_bytes as f64 / peer.peak_memory_bytes as f64
        }),
    })
}

/// The middle value, or the mean of the two middle ones; `None` of nothing.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds_per_step: f64, peak_memory_bytes: u64) -> Measurement {
        Measurement {
            seconds_per_step,
            peak_memory_bytes,
            threads: 2,
            family: "portable".to_owned(),
            precision: "f32".to_owned(),
        }
    }

    #[test]
    fn the_ratio_is_taken_within_pairs() {
        // The machine is ten times slower during the second pair; the ratio does not notice.
        let ours = [run(1.0, 50), run(10.0, 50), run(1.0, 75)];
        let peers = [run(2.0, 100), run(20.0, 100), run(3.0, 100)];
        let comparison = compare("resnet18", 64, &ours, &peers).unwrap();
        assert_eq!(comparison.ours, 64.0);
        assert_eq!(comparison.peer, Some(64.0 / 3.0));
        assert_eq!(comparison.ratio, Some(2.0));
        assert_eq!(comparison.peak_memory_ratio, Some(0.5));
    }

    #[test]
    fn without_a_peer_its_fields_are_null() {
        let comparison = compare("resnet18", 64, &[run(0.5, 1)], &[]).unwrap();
        let line = serde_json::to_string(&comparison).unwrap();
        let expected = r#"{"work":"resnet18","precision":"f32","family":"portable","threads":2,"#;
        let rest = r#""ours":128.0,"peer":null,"ratio":null,"peak_memory_ratio":null}"#;
        assert_eq!(line, format!("{expected}{rest}"));
    }

    #[test]
    fn medians_of_even_and_odd_counts() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
    }

    #[test]
    fn the_last_line_is_the_measurement() {
        let output = "warming up\n{\"seconds_per_step\": 0.25, \"steps\": 4, \
                      \"peak_memory_bytes\": 1000, \"threads\": 1, \"family\": \"portable\", \
                      \"precision\": \"f32\"}\n";
        let measurement = Measurement::parse(output).unwrap();
        assert_eq!(measurement.seconds_per_step, 0.25);
        assert_eq!(measurement.peak_memory_bytes, 1000);
        for bad in ["", "warming up", &output.replace("0.25", "0.0")] {
            assert!(Measurement::parse(bad).is_err(), "{bad}");
        }
    }
}
