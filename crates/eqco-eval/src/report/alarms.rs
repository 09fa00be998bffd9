//! What a run has said of itself that nobody should overlook: alarms for collapse, steps that were not finite.

use serde::Deserialize;

use super::chart::significant;

/// A figure of the embeddings that has been too low for too long.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct CollapseRecord {
    symptom: String,
    step: u64,
    since: u64,
    value: f64,
    threshold: f64,
}

impl CollapseRecord {
    /// In words.
    pub(crate) fn note(&self) -> String {
        let Self { step, since, .. } = self;
        format!(
            "collapse: at step {step} {} was {}, and had been below {} since step {since}",
            self.symptom.replace('_', " "),
            significant(self.value, 4),
            significant(self.threshold, 4)
        )
    }
}

/// A step whose loss or gradient was not finite.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct NonfiniteRecord {
    step: u64,
    action: String,
}

/// All of them in words; `None` if there are none.
pub(crate) fn nonfinite_note(records: &[NonfiniteRecord]) -> Option<String> {
    let last = records.last()?;
    let skipped = records
        .iter()
        .filter(|record| record.action == "skip")
        .count();
    let steps = match skipped {
        0 => String::new(),
        1 => "one step was not finite and was skipped".to_owned(),
        many => format!("{many} steps were not finite and were skipped"),
    };
    Some(match &*last.action {
        "skip" => format!("{steps}, the last of them step {}", last.step),
        _ if steps.is_empty() => format!("step {} was not finite and ended the run", last.step),
        _ => format!(
            "{steps}; step {} was not finite and ended the run",
            last.step
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_told_with_their_figures() {
        let line = r#"{"kind":"collapse","symptom":"contrast_top1","step":299,"since":200,"value":0.0625,"threshold":0.0706}"#;
        let record: CollapseRecord = serde_json::from_str(line).unwrap();
        assert_eq!(
            record.note(),
            "collapse: at step 299 contrast top1 was 0.0625, and had been below 0.0706 since step 200"
        );
    }

    #[test]
    fn steps_are_counted_and_the_last_one_is_named() {
        let records = |actions: &[&str]| -> Vec<NonfiniteRecord> {
            let numbered = (3..).zip(actions);
            let record = |(step, action): (u64, &&str)| NonfiniteRecord {
                step,
                action: (*action).to_owned(),
            };
            numbered.map(record).collect()
        };
        let note = |actions: &[&str]| nonfinite_note(&records(actions));
        assert_eq!(note(&[]), None);
        assert_eq!(
            note(&["stop"]).unwrap(),
            "step 3 was not finite and ended the run"
        );
        assert_eq!(
            note(&["skip", "skip"]).unwrap(),
            "2 steps were not finite and were skipped, the last of them step 4"
        );
        assert_eq!(
            note(&["skip", "stop"]).unwrap(),
            "one step was not finite and was skipped; step 4 was not finite and ended the run"
        );
    }
}
