//! What a run folder says about a run: read from its files, by whoever wrote them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;

/// Bytes at the end of the metrics that hold several whole records.
const TAIL: u64 = 1 << 14;

/// Figures of a run, as far as it has got. What is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Whether all epochs were done.
    pub finished: bool,
    /// Steps done, as of the last record.
    pub steps: Option<u64>,
    /// Steps of the whole run.
    pub total_steps: Option<u64>,
    /// Seconds of training, without evaluation: the sum over finished epochs.
    pub seconds: f64,
    /// Training images a second, over all finished epochs.
    pub images_per_second: Option<f64>,
    /// The commit that trained.
    pub commit: Option<String>,
    /// Means over the recorded steps of the last epoch, in the order of [`Outcome::STATISTICS`].
    pub statistics: Vec<Option<f64>>,
    /// kNN top-1 of the final table in percent.
    pub knn_top1: Option<f64>,
    /// Linear top-1 of the final table in percent.
    pub linear_top1: Option<f64>,
}

impl Outcome {
    /// The fields of step records that are averaged.
    pub const STATISTICS: [&'static str; 8] = [
        "loss",
        "contrast_top1",
        "positive_similarity",
        "negative_similarity",
        "gradient_scale",
        "gradient_scale_deviation",
        "guaranteed_bound",
        "paper_bound",
    ];

    /// Reads the run at `folder`; everything is unknown where there is none. A line that is cut off is passed over.
    pub fn read(folder: &Path) -> Self {
        let text = fs::read(folder.join("metrics.jsonl")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let records: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let summary = fs::read(folder.join("summary.json")).ok();
        let summary: Option<Value> = summary.and_then(|text| serde_json::from_slice(&text).ok());
        let top1 = |name: &str| summary.as_ref()?["pretrained"][name].as_f64();
        Self {
            knn_top1: top1("knn_top1"),
            linear_top1: top1("linear_top1"),
            ..Self::of_records(&records)
        }
    }

    /// Steps done and steps of the whole run, of a run under way; `None` before its first step. Reads the two ends of the
    /// metrics alone, for it is asked every second and they grow.
    pub fn standing(folder: &Path) -> Option<(u64, u64)> {
        let mut file = File::open(folder.join("metrics.jsonl")).ok()?;
        let mut first = String::new();
        BufReader::new(&file).read_line(&mut first).ok()?;
        let run: Value = serde_json::from_str(&first).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
            .ok()?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail).ok()?;
        let tail = String::from_utf8_lossy(&tail);
        let last = tail.lines().rev().find_map(|line| {
            let record: Value = serde_json::from_str(line).ok()?;
            record["step"].as_u64()
        });
        Some((last?, run["steps"].as_u64()?))
    }

    fn of_records(records: &[Value]) -> Self {
        let of_kind =
            |kind: &'static str| records.iter().filter(move |record| record["kind"] == kind);
        let run = of_kind("run").next();
        let epochs: Vec<&Value> = of_kind("epoch").collect();
        let number = |record: &Value, pointer: &str| record.pointer(pointer)?.as_f64();
        let seconds: f64 = epochs
            .iter()
            .filter_map(|epoch| number(epoch, "/timing/seconds"))
            .sum();
        let images: f64 = epochs
            .iter()
            .filter_map(|epoch| {
                Some(
                    number(epoch, "/timing/seconds")? * number(epoch, "/timing/images_per_second")?,
                )
            })
            .sum();
        let last_epoch = of_kind("step").next_back().map(|step| &step["epoch"]);
        let last_steps: Vec<&Value> = of_kind("step")
            .filter(|step| Some(&step["epoch"]) == last_epoch)
            .collect();
        Self {
            finished: of_kind("end").any(|end| end["finished"] == true),
            steps: records
                .iter()
                .rev()
                .find_map(|record| record["step"].as_u64()),
            total_steps: run.and_then(|run| run["steps"].as_u64()),
            seconds,
            images_per_second: (seconds > 0.0).then(|| images / seconds),
            commit: run.and_then(|run| Some(run["commit"].as_str()?.to_owned())),
            statistics: Self::STATISTICS
                .iter()
                .map(|name| mean(&last_steps, name))
                .collect(),
            ..Self::default()
        }
    }
}

/// The mean of a field over the records that have it.
fn mean(records: &[&Value], field: &str) -> Option<f64> {
    let values: Vec<f64> = records
        .iter()
        .filter_map(|record| record[field].as_f64())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"{"kind":"run","steps":4,"commit":"abc"}
{"kind":"step","step":0,"epoch":0,"loss":9.0,"gradient_scale":0.5}
{"kind":"step","step":1,"epoch":0,"loss":8.0,"gradient_scale":0.5}
{"kind":"epoch","epoch":0,"step":2,"timing":{"seconds":2.0,"images_per_second":100.0}}
{"kind":"step","step":2,"epoch":1,"loss":6.0,"gradient_scale":0.25}
{"kind":"step","step":3,"epoch":1,"loss":5.0,"gradient_scale":0.75}
{"kind":"epoch","epoch":1,"step":4,"timing":{"seconds":6.0,"images_per_second":200.0}}
{"kind":"end","step":4,"finished":true}
"#;

    #[test]
    fn the_last_epoch_is_averaged_and_times_are_summed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("metrics.jsonl"), METRICS).unwrap();
        let summary = r#"{"pretrained":{"knn_top1":41.5,"linear_top1":43.0}}"#;
        fs::write(folder.path().join("summary.json"), summary).unwrap();
        let outcome = Outcome::read(folder.path());
        assert!(outcome.finished);
        assert_eq!(Outcome::standing(folder.path()), Some((4, 4)));
        assert_eq!((outcome.steps, outcome.total_steps), (Some(4), Some(4)));
        assert_eq!(
            (outcome.seconds, outcome.images_per_second),
            (8.0, Some(175.0))
        );
        assert_eq!(outcome.commit.as_deref(), Some("abc"));
        assert_eq!(outcome.statistics[0], Some(5.5));
        assert_eq!(outcome.statistics[4], Some(0.5));
        assert_eq!(outcome.statistics[1], None);
        assert_eq!(
            (outcome.knn_top1, outcome.linear_top1),
            (Some(41.5), Some(43.0))
        );
    }

    #[test]
    fn a_run_that_was_cut_off_is_read_as_far_as_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let cut = &METRICS[..METRICS.len() - 120];
        fs::write(folder.path().join("metrics.jsonl"), cut).unwrap();
        let outcome = Outcome::read(folder.path());
        assert_eq!((outcome.finished, outcome.knn_top1), (false, None));
        assert_eq!(outcome.seconds, 2.0);
        assert_eq!(Outcome::standing(folder.path()), Some((3, 4)));
        let first = METRICS.lines().next().unwrap();
        fs::write(folder.path().join("metrics.jsonl"), first).unwrap();
        assert_eq!(Outcome::standing(folder.path()), None);
        assert_eq!(Outcome::read(&folder.path().join("absent")).steps, None);
    }
}
