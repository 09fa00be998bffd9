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
    /// Largest resident size of the process.
    pub peak_memory_bytes: u64,
    /// What of it was there before the network was built: libraries and the runtime.
    pub memory_before_bytes: u64,
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
    /// The smallest and the largest ratio of a pair.
    #[serde(skip)]
    pub ratio_range: Option<[f64; 2]>,
    /// Ours over the peer's peak memory, whole process against whole process: median over pairs. Of
    /// a peer with loader processes only the main one counts.
    pub peak_memory_ratio: Option<f64>,
    /// The same without what either process held before it built its network.
    #[serde(skip)]
    pub net_memory_ratio: Option<f64>,
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

    fn net_memory_bytes(&self) -> u64 {
        self.peak_memory_bytes
            .saturating_sub(self.memory_before_bytes)
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
        let pairs = ours.iter().zip(peers);
        pairs
            .map(|(our, peer)| ratio(our, peer))
            .collect::<Vec<_>>()
    };
    let speed_ratios = over_pairs(|our, peer| peer.seconds_per_step / our.seconds_per_step);
    let memory_ratios =
        over_pairs(|our, peer| our.peak_memory_bytes as f64 / peer.peak_memory_bytes as f64);
    let net_memory_ratios =
        over_pairs(|our, peer| our.net_memory_bytes() as f64 / peer.net_memory_bytes() as f64);
    Ok(Comparison {
        work: work.to_owned(),
        precision: first.precision.clone(),
        family: first.family.clone(),
        threads: first.threads,
        ours: median(ours.iter().map(speed)).unwrap_or_default(),
        peer: median(peers.iter().map(speed)),
        ratio_range: range(&speed_ratios),
        ratio: median(speed_ratios.into_iter()),
        peak_memory_ratio: median(memory_ratios.into_iter()),
        net_memory_ratio: median(net_memory_ratios.into_iter()),
    })
}

/// The middle value, or the mean of the two middle ones; `None` of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The smallest and the largest value; `None` of nothing.
pub fn range(values: &[f64]) -> Option<[f64; 2]> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let largest = values.iter().copied().max_by(f64::total_cmp)?;
    Some([least, largest])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds_per_step: f64, peak_memory_bytes: u64) -> Measurement {
        Measurement {
            seconds_per_step,
            peak_memory_bytes,
            memory_before_bytes: 40,
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
        assert_eq!(comparison.ratio_range, Some([2.0, 3.0]));
        assert_eq!(comparison.peak_memory_ratio, Some(0.5));
        // Net of 40 bytes: 10 / 60, 10 / 60 and 35 / 60.
        assert_eq!(comparison.net_memory_ratio, Some(10.0 / 60.0));
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
                      \"peak_memory_bytes\": 1000, \"memory_before_bytes\": 100, \"threads\": 1, \"family\": \"portable\", \
                      \"precision\": \"f32\"}\n";
        let measurement = Measurement::parse(output).unwrap();
        assert_eq!(measurement.seconds_per_step, 0.25);
        assert_eq!(measurement.net_memory_bytes(), 900);
        for bad in ["", "warming up", &output.replace("0.25", "0.0")] {
            assert!(Measurement::parse(bad).is_err(), "{bad}");
        }
    }
}
