//! The tables at the head of the page: every run, and runs that differ in their seed alone.

use super::Run;
use super::chart::{fixed, grouped, significant};
use super::groups::{Group, Spread, spread};
use super::html::table;

/// What stands where there is no value.
pub(crate) const ABSENT: &str = "–";

fn or_absent<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| ABSENT.to_owned(), text)
}

/// Every run with its settings and results.
pub(crate) fn run_table(runs: &[Run]) -> String {
    let head = [
        "run",
        "method",
        "rule",
        "K",
        "batch",
        "τ",
        "seed",
        "epochs",
        "final loss",
        "kNN top-1 %",
        "linear top-1 %",
        "time",
        "commit",
    ];
    let rows: Vec<Vec<String>> = (names(runs).into_iter().zip(runs))
        .map(|(name, run)| {
            vec![
                name,
                or_absent(run.settings.method(), str::to_owned),
                or_absent(run.rule(), |rule| rule),
                or_absent(run.negative_count(), grouped),
                or_absent(run.batch_size(), grouped),
                or_absent(run.temperature(), |value| significant(value, 4)),
                or_absent(run.seed(), |seed| seed.to_string()),
                epochs(run),
                or_absent(run.metrics.final_loss(), |loss| fixed(loss, 3)),
                or_absent(run.knn_top1(), |top1| fixed(top1, 2)),
                or_absent(run.linear_top1(), |top1| fixed(top1, 2)),
                or_absent(run.metrics.seconds(), duration),
                or_absent(
                    run.record()
                        .map(|record| &record.commit)
                        .filter(|commit| !commit.is_empty()),
                    String::clone,
                ),
            ]
        })
        .collect();
    table(&head, &rows)
}

/// Epochs done, and those wanted where they differ.
fn epochs(run: &Run) -> String {
    let done = run.metrics.epochs.len();
    match run.epochs() {
        Some(wanted) if wanted != done as f64 => format!("{done} of {}", significant(wanted, 6)),
        _ => done.to_string(),
    }
}

/// Names of runs; those that are not alone with theirs have their whole path.
pub(crate) fn names(runs: &[Run]) -> Vec<String> {
    let is_alone = |name: &str| runs.iter().filter(|run| run.name() == name).count() == 1;
    (runs.iter())
        .map(|run| match is_alone(run.name()) {
            true => run.name().to_owned(),
            false => run.path().display().to_string(),
        })
        .collect()
}

/// Means and deviations over seeds; `None` if no group has more than one run.
pub(crate) fn group_table(groups: &[Group<'_>]) -> Option<String> {
    if groups.iter().all(|group| group.runs.len() < 2) {
        return None;
    }
    let rows: Vec<Vec<String>> = (groups.iter())
        .map(|group| {
            let of = |value: fn(&Run) -> Option<f64>, decimals| {
                or_absent(spread(group.runs.iter().map(|run| value(run))), |spread| {
                    spread_text(spread, decimals)
                })
            };
            vec![
                group.label.clone(),
                group.runs.len().to_string(),
                of(Run::knn_top1, 2),
                of(Run::linear_top1, 2),
                of(|run| run.metrics.final_loss(), 3),
                of(|run| run.metrics.final_gradient_scale(), 3),
            ]
        })
        .collect();
    let head = [
        "setting",
        "runs",
        "kNN top-1 %",
        "linear top-1 %",
        "final loss",
        "gradient scale g",
    ];
    Some(table(&head, &rows))
}

/// The same figures of the encoder before training and of raw pixels; `None` if no run has measured them.
pub(crate) fn baseline_table(groups: &[Group<'_>]) -> Option<String> {
    let figure = |run: &Run, baseline: &str, is_linear: bool| -> Option<f64> {
        let mut rows = run.evaluation.rows();
        let (_, row) = rows.find(|(name, _)| *name == baseline)?;
        let measured = if is_linear {
            &row.linear_probe
        } else {
            &row.knn
        };
        Some(measured.as_ref()?.top1)
    };
    let mut is_measured = false;
    let rows: Vec<Vec<String>> = (groups.iter())
        .map(|group| {
            let mut cells = vec![group.label.clone()];
            for (baseline, is_linear) in [
                ("untrained", false),
                ("untrained", true),
                ("raw pixels", false),
                ("raw pixels", true),
            ] {
                let found = spread(
                    group
                        .runs
                        .iter()
                        .map(|run| figure(run, baseline, is_linear)),
                );
                is_measured |= found.is_some();
                cells.push(or_absent(found, |spread| spread_text(spread, 2)));
            }
            cells
        })
        .collect();
    let head = [
        "setting",
        "untrained, kNN %",
        "untrained, linear %",
        "raw pixels, kNN %",
        "raw pixels, linear %",
    ];
    is_measured.then(|| table(&head, &rows))
}

/// `mean ± deviation (n)`.
fn spread_text(spread: Spread, decimals: usize) -> String {
    let mean = fixed(spread.mean, decimals);
    match spread.deviation {
        Some(deviation) => format!("{mean} ± {} ({})", fixed(deviation, decimals), spread.count),
        None => format!("{mean} (1)"),
    }
}

/// A time for people: `42 s`, `5 min 3 s`, `2 h 5 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{} s", significant(seconds, 3)),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", grouped(whole / 3_600), whole % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::super::groups::by_seed;
    use super::super::run::tests::run;
    use super::*;

    #[test]
    fn times_and_spreads_are_written_for_people() {
        assert_eq!(
            [4.256, 61.0, 3_599.6, 7_500.0].map(duration),
            ["4.26 s", "1 min 1 s", "1 h 0 min", "2 h 5 min"]
        );
        let found = spread([Some(80.0), Some(82.0)].into_iter()).unwrap();
        assert_eq!(spread_text(found, 2), "81.00 ± 1.41 (2)");
    }

    #[test]
    fn baselines_are_shown_where_they_were_measured() {
        let mut runs = [
            run("256.0", 16, 0.2, 0, [40.0, 50.0]),
            run("256.0", 16, 0.2, 1, [42.0, 50.0]),
        ];
        assert_eq!(baseline_table(&by_seed(&runs)), None);
        for (run, top1) in runs.iter_mut().zip([30.0, 34.0]) {
            let untrained = serde_json::json!({"knn": {"top1": top1}});
            run.evaluation.untrained = serde_json::from_value(untrained).unwrap();
        }
        let table = baseline_table(&by_seed(&runs)).unwrap();
        let cells = "<td class=\"number\">32.00 ± 2.83 (2)</td><td class=\"number\">–</td><td class=\"number\">–</td>";
        assert!(table.contains(cells), "{table}");
    }

    #[test]
    fn repetitions_are_summarised() {
        let runs = [
            run("256.0", 16, 0.2, 0, [40.0, 50.0]),
            run("256.0", 16, 0.2, 1, [42.0, 50.0]),
        ];
        assert_eq!(group_table(&by_seed(&runs[..1])), None);
        let table = group_table(&by_seed(&runs)).unwrap();
        for text in ["41.00 ± 1.41 (2)", "50.00 ± 0.00 (2)", "0.062 ± 0.000 (2)"] {
            assert!(table.contains(text), "{text} in {table}");
        }
        let table = run_table(&runs);
        assert!(
            table.contains(">0 of") || table.contains(">0</td>"),
            "{table}"
        );
        assert!(
            table.contains("EqCo α=256") && table.contains(">–</td>"),
            "{table}"
        );
    }
}
