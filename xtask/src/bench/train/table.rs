//! The table for people.

use super::super::pairing::Comparison;

/// What the line of `negatives` compares.
pub const NEGATIVES_FOOTNOTE: &str =
    "negatives: the peer is the same step of ours with 16 instead of 4,096 negatives";

/// Names of the columns; `memory` compares whole processes, `net` what building and training added.
pub fn head() -> String {
    format!(
        "{:<14} {:>9} {:>9} {:>7} {:>10} {:>10} {:>6} {:>11} {:>6} {:>6}",
        "work",
        "precision",
        "family",
        "threads",
        "ours img/s",
        "peer img/s",
        "ratio",
        "min-max",
        "memory",
        "net"
    )
}

/// One comparison below the head.
pub fn line(comparison: &Comparison) -> String {
    let number = |value: Option<f64>, digits: usize| match value {
        Some(value) => format!("{value:.digits$}"),
        None => "-".to_owned(),
    };
    let range = match comparison.ratio_range {
        Some([least, largest]) => format!("{least:.2}-{largest:.2}"),
        None => "-".to_owned(),
    };
    format!(
        "{:<14} {:>9} {:>9} {:>7} {:>10} {:>10} {:>6} {:>11} {:>6} {:>6}",
        comparison.work,
        comparison.precision,
        comparison.family,
        comparison.threads,
        number(Some(comparison.ours), 1),
        number(comparison.peer, 1),
        number(comparison.ratio, 2),
        range,
        number(comparison.peak_memory_ratio, 2),
        number(comparison.net_memory_ratio, 2),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_their_head() {
        let mut comparison = Comparison {
            work: "resnet18-w16".to_owned(),
            precision: "f32".to_owned(),
            family: "portable".to_owned(),
            threads: 2,
            ours: 812.34,
            peer: Some(664.0),
            ratio: Some(1.2234),
            ratio_range: Some([1.199, 1.301]),
            peak_memory_ratio: Some(0.132),
            net_memory_ratio: Some(0.4),
        };
        let whole = line(&comparison);
        assert_eq!(whole.len(), head().len());
        assert!(
            whole.ends_with("812.3      664.0   1.22   1.20-1.30   0.13   0.40"),
            "{whole}"
        );
        comparison.peer = None;
        comparison.ratio_range = None;
        assert_eq!(line(&comparison).len(), head().len());
    }
}
