//! The results of a sweep: one line a run for machines, one line a combination for people.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::{Grid, Outcome, SweepError};

/// Where a run of a sweep stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has not begun, or what an earlier sweep began of it will be done anew.
    Waiting,
    /// Its process is alive.
    Running,
    /// Trained, and evaluated if that was wanted.
    Complete,
    /// It was asked to stop and has written a checkpoint.
    Stopped,
    /// Its process has ended with an error.
    Failed,
}

impl Stage {
    /// The word in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// Writes `table.csv` below `sweep`: one line for each run of `grid`, with what its folder says. The file is replaced as
/// a whole. Columns: run, the varied settings, seed, state (the name of its [`Stage`]), steps, the means over the last
/// epoch, kNN and linear top-1 in percent, speed, seconds of training, commit.
///
/// # Errors
/// [`SweepError::File`].
pub fn write_table(
    sweep: &Path,
    grid: &Grid,
    outcomes: &[Outcome],
    stages: &[Stage],
) -> Result<(), SweepError> {
    let path = sweep.join("table.csv");
    let beside = sweep.join(".table.csv.partial");
    fs::write(&beside, csv(grid, outcomes, stages)).map_err(SweepError::file(&beside))?;
    fs::rename(&beside, &path).map_err(SweepError::file(&path))
}

fn csv(grid: &Grid, outcomes: &[Outcome], stages: &[Stage]) -> String {
    let mut header = vec!["run".to_owned()];
    header.extend(grid.axes.iter().map(|axis| axis.short_name().to_owned()));
    header.extend(["seed", "state", "steps"].map(str::to_owned));
    header.extend(Outcome::STATISTICS.map(str::to_owned));
    let last = [
        "knn_top1",
        "linear_top1",
        "images_per_second",
        "seconds",
        "commit",
    ];
    header.extend(last.map(str::to_owned));
    let mut text = line(&header);
    for ((point, outcome), stage) in grid.points.iter().zip(outcomes).zip(stages) {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let mut fields = vec![point.name.clone()];
        fields.extend(point.values.iter().cloned());
        fields.extend([point.seed.to_string(), stage.name().to_owned()]);
        fields.push(
            outcome
                .steps
                .map_or(String::new(), |steps| steps.to_string()),
        );
        fields.extend(
            (0..Outcome::STATISTICS.len())
                .map(|index| number(outcome.statistics.get(index).copied().flatten())),
        );
        fields.extend(
            [
                outcome.knn_top1,
                outcome.linear_top1,
                outcome.images_per_second,
            ]
            .map(number),
        );
        fields.push(outcome.seconds.to_string());
        fields.push(outcome.commit.clone().unwrap_or_default());
        text.push_str(&line(&fields));
    }
    text
}

/// One line of RFC 4180.
fn line(fields: &[String]) -> String {
    let quoted = |field: &String| {
        if field.contains([',', '"', '\n']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    };
    fields.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

/// One line for each combination: mean and sample standard deviation over its complete runs.
pub fn summary(grid: &Grid, outcomes: &[Outcome]) -> String {
    let mut rows = Vec::new();
    let mut header: Vec<String> = grid
        .axes
        .iter()
        .map(|axis| axis.short_name().to_owned())
        .collect();
    header.extend(
        [
            "runs",
            "kNN top-1 %",
            "linear top-1 %",
            "loss",
            "gradient scale",
        ]
        .map(str::to_owned),
    );
    rows.push(header);
    let mut seen: Vec<&[String]> = Vec::new();
    for point in &grid.points {
        if seen.contains(&&*point.values) {
            continue;
        }
        seen.push(&point.values);
        let of_same = grid
            .points
            .iter()
            .zip(outcomes)
            .filter(|(other, _)| other.values == point.values);
        let runs: Vec<&Outcome> = of_same
            .map(|(_, outcome)| outcome)
            .filter(|outcome| outcome.finished)
            .collect();
        let column = |value: &dyn Fn(&Outcome) -> Option<f64>, decimals| {
            spread(
                &runs.iter().filter_map(|run| value(run)).collect::<Vec<_>>(),
                decimals,
            )
        };
        let statistic = |name: &str| {
            let index = Outcome::STATISTICS.iter().position(|known| *known == name);
            move |run: &Outcome| run.statistics.get(index?).copied().flatten()
        };
        let mut row = point.values.clone();
        row.push(runs.len().to_string());
        row.push(column(&|run| run.knn_top1, 2));
        row.push(column(&|run| run.linear_top1, 2));
        row.push(column(&statistic("loss"), 3));
        row.push(column(&statistic("gradient_scale"), 3));
        rows.push(row);
    }
    aligned(&rows)
}

/// `mean ± deviation`, the mean alone for one value, a dash for none.
fn spread(values: &[f64], decimals: usize) -> String {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    match values.len() {
        0 => "-".to_owned(),
        1 => format!("{mean:.decimals$}"),
        _ => {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            format!(
                "{mean:.decimals$} ± {:.decimals$}",
                (squares / (count - 1.0)).sqrt()
            )
        }
    }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:>width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("   ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ConfigArgs;

    fn grid() -> Grid {
        let axes = [
            "alpha=256,infonce".to_owned(),
            "data.recipe.crop_scale=[0.2, 1.0]".to_owned(),
        ];
        Grid::new(&axes, 2, 0, 1, &ConfigArgs::default()).unwrap()
    }

    fn outcomes(knn: [f64; 4]) -> Vec<Outcome> {
        let outcome = |top1| Outcome {
            finished: true,
            knn_top1: Some(top1),
            statistics: vec![Some(5.0), None, None, None, Some(0.5)],
            ..Outcome::default()
        };
        knn.map(outcome).to_vec()
    }

    #[test]
    fn every_run_is_a_line_and_commas_are_quoted() {
        let text = csv(
            &grid(),
            &outcomes([40.0, 30.0, 42.0, 31.0]),
            &[Stage::Complete; 4],
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(
            lines[0].starts_with("run,alpha,crop_scale,seed,state,steps,loss,contrast_top1,"),
            "{}",
            lines[0]
        );
        assert!(
            lines[1].contains(",256,\"[0.2, 1.0]\",0,complete,,5,,,,0.5,,,,40,,,0,"),
            "{}",
            lines[1]
        );
    }

    #[test]
    fn seeds_are_averaged_with_their_spread() {
        let text = summary(&grid(), &outcomes([40.0, 30.0, 42.0, 31.0]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        // sqrt(((40 - 41)^2 + (42 - 41)^2) / 1)
        assert!(lines[1].contains("41.00 ± 1.41"), "{text}");
        assert!(lines[2].contains("30.50 ± 0.71"), "{text}");
        assert!(
            lines[1].ends_with("5.000 ± 0.000    0.500 ± 0.000"),
            "{text}"
        );
        let mut unfinished = outcomes([40.0, 30.0, 42.0, 31.0]);
        unfinished[2].finished = false;
        let text = summary(&grid(), &unfinished);
        assert!(text.lines().nth(1).unwrap().contains("   1   "), "{text}");
    }
}
