//! Reads `evaluation.json`: the measurements of a run with their protocols.

use serde::Deserialize;
use serde_json::Value;

use crate::Sample;

/// All measurements of a run; rows that were not measured are absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct EvaluationFile {
    pub(crate) pretrained: Option<Measurements>,
    pub(crate) untrained: Option<Measurements>,
    pub(crate) raw_pixels: Option<Measurements>,
}

/// Both measurements of one representation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Measurements {
    pub(crate) knn: Option<Measurement>,
    pub(crate) linear_probe: Option<Measurement>,
}

/// One figure with its protocol.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Measurement {
    /// In percent.
    pub(crate) top1: f64,
    pub(crate) protocol: Option<ProtocolText>,
}

/// A protocol whose settings are not looked into.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct ProtocolText {
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) config: Value,
    pub(crate) train: Sample,
    pub(crate) test: Sample,
    pub(crate) dim: u64,
    pub(crate) class_count: u64,
}

impl EvaluationFile {
    /// The measured representations with their names, in the order of the run's own table.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, &Measurements)> {
        let rows = [
            ("pre-trained", &self.pretrained),
            ("untrained", &self.untrained),
            ("raw pixels", &self.raw_pixels),
        ];
        rows.into_iter()
            .filter_map(|(name, row)| Some((name, row.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EvalConfig, Evaluation, FeaturePair, Features, Origin};

    #[test]
    fn what_the_library_writes_is_read_with_and_without_baselines() {
        let part = |split: &str| {
            let labels: Vec<u32> = (0..40).map(|row| row % 2).collect();
            let values = (0..40)
                .flat_map(|row| [(row % 2) as f32, row as f32 / 40.0])
                .collect();
            Features::new(Origin::new("line", split, "by hand"), values, 2, labels, 2).unwrap()
        };
        let pair = FeaturePair::new(part("train"), part("test")).unwrap();
        let evaluation = Evaluation::new(&pair, &EvalConfig::default()).unwrap();
        let json = serde_json::json!({"pretrained": evaluation, "untrained": null});
        let read: EvaluationFile = serde_json::from_value(json).unwrap();
        let knn = read.pretrained.as_ref().unwrap().knn.as_ref().unwrap();
        assert_eq!(knn.top1, evaluation.knn.accuracy.top1);
        let protocol = knn.protocol.as_ref().unwrap();
        assert_eq!((protocol.train.count, protocol.class_count), (40, 2));
        assert_eq!(protocol.config["neighbours"], 20);
        let names: Vec<_> = read.rows().map(|(name, _)| name).collect();
        assert_eq!(names, ["pre-trained"]);
    }
}
