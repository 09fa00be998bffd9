//! What libFuzzer says about a run.

use std::time::Duration;

/// A run's figures, and what it found.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Inputs tried.
    pub runs: u64,
    /// In a second.
    pub rate: f64,
    /// Edges of the program that any input reached.
    pub edges: u64,
    /// Inputs that are kept, each of which reached something new.
    pub inputs: u64,
    /// The most memory of the process.
    pub peak_mib: u64,
    /// The file with the input that failed.
    pub artifact: Option<String>,
    /// Why it failed.
    pub reason: String,
}

impl Outcome {
    /// Reads libFuzzer's messages of a run of this length. A run that fails has no figures at its end; then they are those of
    /// the last line of progress.
    pub fn parse(messages: &str, length: Duration) -> Self {
        let statistic = |name: &str| {
            let marker = format!("stat::{name}:");
            let line = messages
                .lines()
                .rev()
                .find_map(|line| line.strip_prefix(&marker));
            line.and_then(|value| value.trim().parse().ok())
        };
        let progress = messages
            .lines()
            .rev()
            .find(|line| line.starts_with('#') && line.contains(" cov: "));
        let progress = progress.unwrap_or_default();
        let artifact = messages.lines().find_map(|line| {
            line.split_once("Test unit written to ")
                .map(|(_, path)| path.to_owned())
        });
        let is_reason = |line: &&str| {
            line.starts_with("SUMMARY: ")
                || line.contains(" panicked at ")
                || line.contains("ERROR: libFuzzer: ")
        };
        let runs =
            statistic("number_of_executed_units").unwrap_or_else(|| leading_number(progress));
        Self {
            runs,
            rate: runs as f64 / length.as_secs_f64(),
            edges: number_behind(progress, "cov:"),
            inputs: number_behind(progress, "corp:"),
            peak_mib: statistic("peak_rss_mb").unwrap_or_else(|| number_behind(progress, "rss:")),
            artifact,
            reason: messages
                .lines()
                .find(is_reason)
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// The number in `#123 NEW …`.
fn leading_number(line: &str) -> u64 {
    digits(line.trim_start_matches('#'))
}

/// The number that follows a word of a line of progress.
fn number_behind(line: &str, word: &str) -> u64 {
    let mut words = line.split_whitespace().skip_while(|found| *found != word);
    words.nth(1).map_or(0, digits)
}

/// The digits at the beginning of a text.
fn digits(text: &str) -> u64 {
    let end = text.find(|character: char| !character.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn figures_of_a_run_that_finds_nothing() {
        let messages = "#2\tINITED cov: 100 ft: 101 corp: 2/70b exec/s: 0 rss: 42Mb\n\
                        #4096\tDONE   cov: 812 ft: 2044 corp: 97/9Kb lim: 4096 exec/s: 68 rss: 61Mb\n\
                        stat::number_of_executed_units: 4100\nstat::peak_rss_mb:              63\n";
        let outcome = Outcome::parse(messages, MINUTE);
        assert_eq!(
            (
                outcome.runs,
                outcome.edges,
                outcome.inputs,
                outcome.peak_mib
            ),
            (4100, 812, 97, 63)
        );
        assert_eq!((outcome.artifact, outcome.reason.as_str()), (None, ""));
        assert!((outcome.rate - 4100.0 / 60.0).abs() < 1e-9);
    }

    #[test]
    fn a_failure_is_told_with_its_input() {
        let messages = "#512\tNEW    cov: 300 ft: 400 corp: 9/1Kb lim: 4 exec/s: 0 rss: 44Mb L: 5/9\n\
                        thread '<unnamed>' panicked at src/x.rs:3:4:\nattempt to add with overflow\n\
                        SUMMARY: libFuzzer: deadly signal\n\
                        artifact_prefix='/a/'; Test unit written to /a/crash-00\nBase64: AA==\n";
        let outcome = Outcome::parse(messages, MINUTE);
        assert_eq!(
            (outcome.runs, outcome.edges, outcome.peak_mib),
            (512, 300, 44)
        );
        assert_eq!(outcome.artifact.as_deref(), Some("/a/crash-00"));
        assert_eq!(
            outcome.reason,
            "thread '<unnamed>' panicked at src/x.rs:3:4:"
        );
        let nothing = Outcome::parse("", MINUTE);
        assert_eq!((nothing.runs, nothing.edges), (0, 0));
    }
}
