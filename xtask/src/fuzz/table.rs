//! The table at the end of a run of fuzz targets.

use std::fmt::Write;

use super::outcome::Outcome;

/// A line for each target.
pub fn text(outcomes: &[(String, Outcome)]) -> String {
    let mut text = format!(
        "{:<18} {:>10} {:>8} {:>7} {:>7} {:>8}  {}\n",
        "target", "runs", "runs/s", "edges", "inputs", "peak MiB", "found"
    );
    for (name, outcome) in outcomes {
        let found = outcome.artifact.as_deref().unwrap_or("nothing");
        let _ = writeln!(
            text,
            "{name:<18} {:>10} {:>8.0} {:>7} {:>7} {:>8}  {found}",
            outcome.runs, outcome.rate, outcome.edges, outcome.inputs, outcome.peak_mib
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_their_names() {
        let outcome = Outcome {
            runs: 123_456,
            rate: 2057.6,
            edges: 812,
            inputs: 97,
            peak_mib: 63,
            artifact: None,
            reason: String::new(),
        };
        let text = text(&[("stored_index".to_owned(), outcome)]);
        assert_eq!(
            text,
            "target                   runs   runs/s   edges  inputs peak MiB  found\n\
             stored_index           123456     2058     812      97       63  nothing\n"
        );
    }
}
