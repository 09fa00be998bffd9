//! Reads `metrics.jsonl`: one record a line, `kind` tells which.

use std::path::Path;

use serde::Deserialize;

use super::ReportError;
use super::alarms::{CollapseRecord, NonfiniteRecord, nonfinite_note};
use super::batch_statistics::{StepRecord, nan, number};

/// Everything that a run has written about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metrics {
    pub(crate) run: Option<RunRecord>,
    pub(crate) steps: Vec<StepRecord>,
    pub(crate) epochs: Vec<EpochRecord>,
    pub(crate) knn: Vec<KnnRecord>,
    /// Whether the run says that it did all of its epochs; `None` while it has not ended.
    pub(crate) finished: Option<bool>,
    pub(crate) nonfinite: Vec<NonfiniteRecord>,
    /// What is odd about the run or the file, for people.
    pub(crate) notes: Vec<String>,
}

/// The first record: what ran, on what.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct RunRecord {
    pub(crate) version: String,
    pub(crate) commit: String,
    pub(crate) preset: String,
    pub(crate) seed: Option<u64>,
    pub(crate) data_set: String,
    pub(crate) train_images: Option<u64>,
    pub(crate) steps: Option<u64>,
    pub(crate) parameters: Option<u64>,
    /// Negatives that a query really has.
    pub(crate) negative_count: Option<u64>,
    pub(crate) chance_loss: Option<f64>,
    pub(crate) device: String,
    pub(crate) backend: String,
    pub(crate) precision: String,
    pub(crate) threads: Option<u64>,
    pub(crate) machine: Machine,
}

/// The hardware.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: Option<u64>,
    pub(crate) instruction_sets: Vec<String>,
    pub(crate) memory_bytes: Option<u64>,
}

/// One finished epoch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct EpochRecord {
    pub(crate) epoch: u64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) loss: f64,
    #[serde(default)]
    pub(crate) timing: Timing,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Timing {
    pub(crate) seconds: f64,
    pub(crate) images_per_second: f64,
}

/// Nearest-neighbour accuracy measured during training, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(crate) struct KnnRecord {
    pub(crate) step: u64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) knn_top1: f64,
}

#[derive(Deserialize)]
struct EndRecord {
    #[serde(default)]
    finished: bool,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

/// Reads the text of a `metrics.jsonl`. A last line without its end, as a run leaves behind that was killed or is still
/// writing, is left out with a note. Kinds that are not known here are passed over.
///
/// # Errors
/// [`ReportError::Malformed`] with the number of the line if any other line is not a record.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Metrics, ReportError> {
    let mut metrics = Metrics::default();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        if let Err(error) = metrics.add(line) {
            if index + 1 == lines.len() && !text.ends_with('\n') {
                let note = format!(
                    "the last line of {} is cut off and was left out",
                    name(path)
                );
                metrics.notes.push(note);
                break;
            }
            return Err(ReportError::Malformed {
                path: path.to_owned(),
                reason: format!(
                    "line {}: expected a record with its kind, got {error}",
                    index + 1
                ),
            });
        }
    }
    metrics.notes.extend(nonfinite_note(&metrics.nonfinite));
    match metrics.finished {
        None => metrics.notes.push("the run has not ended".to_owned()),
        Some(false) => metrics
            .notes
            .push("the run was stopped before its last epoch".to_owned()),
        Some(true) => {}
    }
    Ok(metrics)
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

impl Metrics {
    fn add(&mut self, line: &str) -> Result<(), serde_json::Error> {
        let Kind { kind } = serde_json::from_str(line)?;
        match kind.as_str() {
            "run" => self.run = Some(serde_json::from_str(line)?),
            "step" => self.steps.push(serde_json::from_str(line)?),
            "epoch" => self.epochs.push(serde_json::from_str(line)?),
            "knn" => self.knn.push(serde_json::from_str(line)?),
            "nonfinite" => self.nonfinite.push(serde_json::from_str(line)?),
            "collapse" => {
                let alarm: CollapseRecord = serde_json::from_str(line)?;
                self.notes.push(alarm.note());
            }
            "end" => self.finished = Some(serde_json::from_str::<EndRecord>(line)?.finished),
            _ => {}
        }
        Ok(())
    }

    /// Mean loss of the last finished epoch in nats, of the last step before there is one.
    pub(crate) fn final_loss(&self) -> Option<f64> {
        let epoch = self.epochs.last().map(|epoch| epoch.loss);
        epoch
            .or_else(|| self.steps.last().map(|step| step.loss))
            .filter(|loss| loss.is_finite())
    }

    /// Mean gradient scale over the steps of the last epoch that has any.
    pub(crate) fn final_gradient_scale(&self) -> Option<f64> {
        let last = self.steps.last()?.epoch;
        let scales: Vec<f64> = (self.steps.iter())
            .filter(|step| step.epoch == last && step.gradient_scale.is_finite())
            .map(|step| step.gradient_scale)
            .collect();
        (!scales.is_empty()).then(|| scales.iter().sum::<f64>() / scales.len() as f64)
    }

    /// Seconds of all finished epochs.
    pub(crate) fn seconds(&self) -> Option<f64> {
        let seconds: f64 = self.epochs.iter().map(|epoch| epoch.timing.seconds).sum();
        (seconds > 0.0).then_some(seconds)
    }

    /// Training images a second over all finished epochs.
    pub(crate) fn images_per_second(&self) -> Option<f64> {
        let images =
            (self.epochs.iter()).map(|epoch| epoch.timing.images_per_second * epoch.timing.seconds);
        Some(images.sum::<f64>() / self.seconds()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"kind":"run","version":"0.1.0","commit":"abc","seed":3,"negative_count":16,"machine":{"cpu":"Xeon","cores":2},"chance_loss":5.5,"later":1}
{"kind":"step","step":0,"epoch":0,"loss":5.0,"gradient_scale":0.9}
{"kind":"epoch","epoch":0,"step":1,"loss":5.0,"timing":{"seconds":2.0,"images_per_second":100.0}}
{"kind":"knn","epoch":0,"step":1,"knn_top1":33.5}
{"kind":"something new","epoch":0}
{"kind":"step","step":1,"epoch":1,"loss":4.0,"gradient_scale":0.75}
{"kind":"step","step":2,"epoch":1,"loss":null,"gradient_scale":0.25}
{"kind":"epoch","epoch":1,"step":3,"loss":4.5,"timing":{"seconds":6.0,"images_per_second":200.0}}
{"kind":"checkpoint","step":3,"file":"step-000000003.safetensors"}
{"kind":"end","step":3,"finished":true}
"#;

    #[test]
    fn records_are_read_by_kind() {
        let metrics = parse(Path::new("metrics.jsonl"), TEXT).unwrap();
        let run = metrics.run.as_ref().unwrap();
        assert_eq!(
            (run.seed, run.negative_count, run.chance_loss),
            (Some(3), Some(16), Some(5.5))
        );
        assert_eq!(
            (&*run.machine.cpu, run.machine.memory_bytes),
            ("Xeon", None)
        );
        assert_eq!(
            (
                metrics.steps.len(),
                metrics.epochs.len(),
                metrics.knn[0].knn_top1
            ),
            (3, 2, 33.5)
        );
        assert_eq!((metrics.finished, metrics.notes.len()), (Some(true), 0));
        assert_eq!(metrics.final_loss(), Some(4.5));
        assert_eq!(metrics.final_gradient_scale(), Some(0.5));
        assert_eq!(metrics.seconds(), Some(8.0));
        assert_eq!(metrics.images_per_second(), Some((200.0 + 1200.0) / 8.0));
    }

    #[test]
    fn what_went_wrong_is_noted() {
        let alarms = r#"{"kind":"collapse","symptom":"deviation","step":9,"since":4,"value":0.05,"threshold":0.1}
{"kind":"nonfinite","step":11,"epoch":1,"action":"stop","loss":{"value":"NaN","bits":1},"skipped_steps":0,"dump":"a.json"}
"#;
        let cut = TEXT.find("{\"kind\":\"end\"").unwrap();
        let metrics = parse(
            Path::new("metrics.jsonl"),
            &(TEXT[..cut].to_owned() + alarms),
        )
        .unwrap();
        let notes = [
            "collapse: at step 9 deviation was 0.05, and had been below 0.1 since step 4",
            "step 11 was not finite and ended the run",
            "the run has not ended",
        ];
        assert_eq!(metrics.notes, notes);
    }

    #[test]
    fn a_last_line_that_is_cut_off_is_left_out_with_a_note() {
        let cut = &TEXT[..TEXT.find("0.25").unwrap()];
        let metrics = parse(Path::new("run/metrics.jsonl"), cut).unwrap();
        assert_eq!(metrics.steps.len(), 2);
        let notes = [
            "the last line of metrics.jsonl is cut off and was left out",
            "the run has not ended",
        ];
        assert_eq!(metrics.notes, notes);
        assert_eq!(metrics.final_loss(), Some(5.0));
        let empty = parse(Path::new("metrics.jsonl"), "").unwrap();
        assert_eq!(
            (
                empty.final_loss(),
                empty.seconds(),
                empty.images_per_second()
            ),
            (None, None, None)
        );
    }

    #[test]
    fn any_other_line_that_is_no_record_is_an_error_with_its_number() {
        let text = TEXT.replacen("{\"kind\":\"epoch\"", "{\"kond\":\"epoch\"", 1);
        let error = parse(Path::new("metrics.jsonl"), &text)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("metrics.jsonl: line 3: expected a record"),
            "{error}"
        );
    }
}
