//! What a profile says, as a table and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{Phase, Total, Totals};

/// Name of the line for what no operation accounts for.
const REST: &str = "everything else";

/// A finished profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Steps that were measured.
    pub steps: u64,
    /// Their time in seconds, waiting for batches included.
    pub seconds: f64,
    /// The operations with the longest first; the seconds of all lines add up to the total.
    pub lines: Vec<Line>,
}

/// All calls of one operation in one phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The operation, with its kernel where there are several.
    pub operation: String,
    /// Part of the step.
    pub phase: Phase,
    /// How often it was called.
    pub calls: u64,
    /// Seconds in all.
    pub seconds: f64,
    /// Of the total time, 0 to 1.
    pub share: f64,
    /// Bytes that its arrays have, for every pass over one; 0 where they are not counted.
    pub bytes: u64,
    /// `bytes` a second in units of 10⁹.
    pub gigabytes_per_second: Option<f64>,
    /// Multiplications and additions of the textbook algorithm; 0 where they are not counted.
    pub flops: u64,
    /// `flops` a second in units of 10⁹.
    pub gigaflops_per_second: Option<f64>,
}

impl Report {
    pub(super) fn new(totals: &Totals, steps: u64, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let mut lines: Vec<Line> = totals
            .iter()
            .map(|((operation, phase), total)| Line::new(operation, *phase, total, seconds))
            .collect();
        let accounted: Duration = totals.values().map(|total| total.elapsed).sum();
        let rest = Total {
            elapsed: elapsed.saturating_sub(accounted),
            ..Total::default()
        };
        lines.push(Line::new(REST, Phase::Other, &rest, seconds));
        lines.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Self {
            steps,
            seconds,
            lines,
        }
    }
}

impl Line {
    fn new(operation: &str, phase: Phase, total: &Total, all_seconds: f64) -> Self {
        let seconds = total.elapsed.as_secs_f64();
        let rate = |count: u64| (count > 0 && seconds > 0.0).then(|| count as f64 / seconds / 1e9);
        Self {
            operation: operation.to_owned(),
            phase,
            calls: total.calls,
            seconds,
            share: if all_seconds > 0.0 {
                seconds / all_seconds
            } else {
                0.0
            },
            bytes: total.bytes,
            gigabytes_per_second: rate(total.bytes),
            flops: total.flops,
            gigaflops_per_second: rate(total.flops),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_step = 1e3 * self.seconds / self.steps.max(1) as f64;
        writeln!(
            f,
            "{} steps in {:.1} s, {per_step:.1} ms each",
            self.steps, self.seconds
        )?;
        write!(
            f,
            "{:<25} {:<15} {:>8} {:>6} {:>8} {:>8} {:>7} {:>7}",
            "operation", "", "seconds", "share", "calls", "GB", "GB/s", "GFLOP/s"
        )?;
        for line in &self.lines {
            write!(
                f,
                "\n{:<25} {:<15} {:>8.2} {:>5.1}% {:>8} {:>8} {:>7} {:>7}",
                line.operation,
                line.phase.title(),
                line.seconds,
                100.0 * line.share,
                or_dash((line.calls > 0).then_some(line.calls as f64), 0),
                or_dash((line.bytes > 0).then_some(line.bytes as f64 / 1e9), 1),
                or_dash(line.gigabytes_per_second, 1),
                or_dash(line.gigaflops_per_second, 0),
            )?;
        }
        Ok(())
    }
}

fn or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Profiler, Work};

    fn report() -> Report {
        let profiler = Profiler::on();
        let convolution = Work::new("conv2d 3x3 direct", Phase::WeightGradient);
        profiler.add(
            convolution.moving(3_000_000_000).computing(60_000_000_000),
            Duration::from_millis(600),
        );
        profiler.add(Work::new("loss", Phase::Other), Duration::from_millis(250));
        profiler.report(4, Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn seconds_and_shares_add_up_to_the_whole() {
        let report = report();
        let seconds: f64 = report.lines.iter().map(|line| line.seconds).sum();
        let share: f64 = report.lines.iter().map(|line| line.share).sum();
        assert!((seconds - 1.0).abs() < 1e-12 && (share - 1.0).abs() < 1e-12);
        let order: Vec<_> = report.lines.iter().map(|l| l.operation.as_str()).collect();
        assert_eq!(order, ["conv2d 3x3 direct", "loss", REST]);
        assert_eq!(report.lines[0].gigabytes_per_second, Some(5.0));
        assert_eq!(report.lines[0].gigaflops_per_second, Some(100.0));
        assert_eq!(report.lines[1].gigabytes_per_second, None);
    }

    #[test]
    fn the_table_lines_up_and_leaves_out_what_is_not_known() {
        let text = report().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "4 steps in 1.0 s, 250.0 ms each");
        assert!(
            lines[1..]
                .iter()
                .all(|line| line.len() == lines[1].len() && line.len() < 100)
        );
        assert_eq!(
            lines[2].split_whitespace().collect::<Vec<_>>().join(" "),
            "conv2d 3x3 direct weight gradient 0.60 60.0% 1 3.0 5.0 100"
        );
        assert!(lines[4].starts_with(REST) && lines[4].ends_with('-'));
    }

    #[test]
    fn more_time_in_operations_than_in_all_leaves_nothing_for_the_rest() {
        let profiler = Profiler::on();
        profiler.add(Work::new("loss", Phase::Other), Duration::from_secs(2));
        let report = profiler.report(0, Duration::from_secs(1)).unwrap();
        assert_eq!(report.lines[1].seconds, 0.0);
        assert!(report.to_string().starts_with("0 steps"));
        let nothing = Profiler::on().report(0, Duration::ZERO).unwrap();
        assert_eq!(nothing.lines[0].share, 0.0);
    }
}
