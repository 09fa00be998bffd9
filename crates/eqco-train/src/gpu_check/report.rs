//! Everything that was found, as a table for people and as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::outcome::{Check, Measurement, Outcome, Work};
use super::part::Part;
use super::speed::{COPY, PRODUCT_IN_BF16, PRODUCT_IN_F32};
use super::targets::{Target, Wanted, targets};

/// Columns of the table.
const WIDTH: usize = 100;
/// Failed checks of a part that are listed one by one.
const MOST_FAILURES: usize = 5;

/// What was checked, on what.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the device.
    pub device: String,
    /// Version of its driver.
    pub driver: String,
    /// What computed.
    pub backend: String,
    /// The processor that it was compared with, and its instruction set.
    pub cpu: String,
    /// Version of this crate.
    pub version: &'static str,
    /// The commit that was built.
    pub commit: &'static str,
    /// Of shapes and values.
    pub seed: u64,
    /// What every part found.
    pub parts: Vec<PartReport>,
    /// What is wanted, and what was found of it.
    pub targets: Vec<Target>,
    /// Whether all parts came to their end with all numbers within their bounds.
    pub passed: bool,
}

/// What one part found.
#[derive(Clone, Debug, Serialize)]
pub struct PartReport {
    /// The part.
    pub name: String,
    /// What it took.
    pub seconds: f64,
    /// What it found.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl PartReport {
    /// Of a part that took so long.
    pub fn new(part: Part, seconds: f64, outcome: Outcome) -> Self {
        Self {
            name: part.to_string(),
            seconds,
            outcome,
        }
    }

    fn passed(&self) -> bool {
        self.outcome.passed()
    }
}

impl Report {
    /// Draws the conclusions from all parts.
    #[must_use]
    pub fn concluded(mut self) -> Self {
        let outcomes: Vec<&Outcome> = self.parts.iter().map(|part| &part.outcome).collect();
        self.targets = targets(&outcomes);
        self.passed = !self.parts.is_empty() && self.parts.iter().all(PartReport::passed);
        self
    }

    /// The table, of lines of at most 100 columns.
    pub fn table(&self) -> String {
        let mut lines = vec![
            format!("{}, driver {}, {}", self.device, self.driver, self.backend),
            format!("against {}", self.cpu),
            format!(
                "eqco-train {} ({}), seed {}",
                self.version, self.commit, self.seed
            ),
        ];
        self.numbers(&mut lines);
        self.speed(&mut lines);
        self.peers(&mut lines);
        self.wanted(&mut lines);
        self.rest(&mut lines);
        let mut table = String::new();
        for line in lines {
            let line = line.trim_end();
            let cut: String = line.chars().take(WIDTH).collect();
            // A longer line is a message, which is broken and not cut.
            let rest: String = line.chars().skip(WIDTH).collect();
            let _ = writeln!(table, "{cut}");
            for piece in broken(&rest) {
                let _ = writeln!(table, "    {piece}");
            }
        }
        table
    }

    fn numbers(&self, lines: &mut Vec<String>) {
        let parts = self.parts.iter();
        let parts: Vec<&PartReport> = parts
            .filter(|part| !part.outcome.checks.is_empty())
            .collect();
        heading(
            lines,
            &format!(
                "{:<26}{:>7}  {:<8}{:>9}  {}",
                "numbers", "checks", "", "of bound", "furthest"
            ),
        );
        for part in parts {
            let checks = &part.outcome.checks;
            let furthest = checks.iter().max_by(|a, b| a.ratio().total_cmp(&b.ratio()));
            let Some(furthest) = furthest else { continue };
            lines.push(shortened(format!(
                "{:<26}{:>7}  {:<8}{:>9}  {}: {}",
                part.name,
                checks.len(),
                if part.passed() { "ok" } else { "FAILED" },
                ratio(furthest),
                furthest.name,
                furthest.detail
            )));
        }
    }

    fn measurement(&self, name: &str) -> Option<&Measurement> {
        let mut all = self
            .parts
            .iter()
            .flat_map(|part| &part.outcome.measurements);
        all.find(|measurement| measurement.name == name)
    }

    fn speed(&self, lines: &mut Vec<String>) {
        let all: Vec<&Measurement> = self
            .parts
            .iter()
            .flat_map(|part| &part.outcome.measurements)
            .collect();
        if all.is_empty() {
            return;
        }
        heading(
            lines,
            &format!(
                "{:<50}{:>12}{:>18}{:>12}",
                "speed", "ms", "rate", "of ceiling"
            ),
        );
        for measurement in all {
            let ceiling = self.ceiling(measurement).map_or(String::new(), percent);
            lines.push(format!(
                "{:<50}{:>12.3}{:>18}{:>12}",
                measurement.name,
                measurement.milliseconds,
                rate(measurement),
                ceiling
            ));
        }
    }

    /// The share of what the device was found to do of that work.
    fn ceiling(&self, measurement: &Measurement) -> Option<f64> {
        let name = match measurement.work {
            Work::Bytes(_) => COPY,
            Work::FlopsInBf16(_) => PRODUCT_IN_BF16,
            Work::FlopsInF32(_) => PRODUCT_IN_F32,
            Work::HostBytes(_) | Work::Images(_) => return None,
        };
        Some(measurement.rate() / self.measurement(name)?.rate())
    }

    fn peers(&self, lines: &mut Vec<String>) {
        let all: Vec<_> = self
            .parts
            .iter()
            .flat_map(|part| &part.outcome.comparisons)
            .collect();
        let Some(first) = all.first() else { return };
        let title = format!("in turns with PyTorch {}", first.version);
        heading(
            lines,
            &format!(
                "{:<36}{:>10}{:>14}{:>10}{:>14}{:>16}",
                title, "ours, ms", "PyTorch, ms", "speed-up", "ours, peak", "PyTorch, peak"
            ),
        );
        for pair in all {
            lines.push(format!(
                "{:<36}{:>10.2}{:>14.2}{:>10.2}{:>14}{:>16}",
                format!("{}, {}", pair.workload, pair.variant),
                pair.our_milliseconds,
                pair.their_milliseconds,
                pair.speedup,
                gigabytes(pair.our_peak_bytes),
                gigabytes(pair.their_peak_bytes)
            ));
        }
    }

    fn wanted(&self, lines: &mut Vec<String>) {
        if self.targets.iter().all(|target| target.found.is_none()) {
            return;
        }
        heading(
            lines,
            &format!("{:<52}{:>14}{:>12}  {}", "targets", "wanted", "found", ""),
        );
        for target in &self.targets {
            let wanted = match target.wanted {
                Wanted::AtLeast(wanted) => format!("at least {wanted:.2}"),
                Wanted::AtMost(wanted) => format!("at most {wanted:.2}"),
            };
            let found = target
                .found
                .map_or("–".to_owned(), |found| format!("{found:.2}"));
            let verdict = match target.is_met() {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not measured",
            };
            lines.push(format!(
                "{:<52}{wanted:>14}{found:>12}  {verdict}",
                target.name
            ));
        }
    }

    /// Notes, failures and the verdict.
    fn rest(&self, lines: &mut Vec<String>) {
        lines.push(String::new());
        let mut notes: Vec<&String> = Vec::new();
        for note in self.parts.iter().flat_map(|part| &part.outcome.notes) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        lines.extend(notes.into_iter().cloned());
        for part in &self.parts {
            let failed = part.outcome.checks.iter().filter(|check| !check.passed);
            let failed: Vec<&Check> = failed.collect();
            for check in failed.iter().take(MOST_FAILURES) {
                let (name, detail) = (&check.name, &check.detail);
                lines.push(format!(
                    "FAILED  {}, {name}: {} of bound, {detail}",
                    part.name,
                    ratio(check)
                ));
            }
            if failed.len() > MOST_FAILURES {
                let more = failed.len() - MOST_FAILURES;
                lines.push(format!("FAILED  {}: {more} more", part.name));
            }
            if let Some(error) = &part.outcome.error {
                lines.push(format!("FAILED  {}: {error}", part.name));
            }
        }
        let seconds: Vec<String> = self
            .parts
            .iter()
            .map(|part| format!("{} {:.0}", part.name, part.seconds))
            .collect();
        lines.push(format!("seconds: {}", seconds.join(", ")));
        lines.push(if self.passed { "PASSED" } else { "FAILED" }.to_owned());
    }
}

fn heading(lines: &mut Vec<String>, text: &str) {
    lines.extend([String::new(), text.to_owned()]);
}

/// Cut to the width of the table: all of it is in the JSON.
fn shortened(line: String) -> String {
    if line.chars().count() <= WIDTH {
        return line;
    }
    let kept: String = line.chars().take(WIDTH - 1).collect();
    format!("{kept}…")
}

/// Pieces that fit into a line behind four spaces.
fn broken(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let pieces = characters.chunks(WIDTH - 4);
    pieces.map(|piece| piece.iter().collect()).collect()
}

fn ratio(check: &Check) -> String {
    let ratio = check.ratio();
    if ratio.is_finite() {
        format!("{ratio:.2}")
    } else {
        "none".to_owned()
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn rate(measurement: &Measurement) -> String {
    let rate = measurement.rate();
    match measurement.work {
        Work::Bytes(_) | Work::HostBytes(_) => format!("{:.0} GB/s", rate / 1e9),
        Work::FlopsInBf16(_) | Work::FlopsInF32(_) => format!("{:.1} TFLOP/s", rate / 1e12),
        Work::Images(_) => format!("{rate:.0} images/s"),
    }
}

fn gigabytes(bytes: Option<u64>) -> String {
    bytes.map_or("–".to_owned(), |bytes| {
        format!("{:.2} GB", bytes as f64 / 1e9)
    })
}

#[cfg(test)]
mod tests;
