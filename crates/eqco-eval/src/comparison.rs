//! The table that says whether pre-training was worth it: the pre-trained representation beside the
//! same encoder at initialisation and beside raw pixels, where these baselines are wanted.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    EvalError, FeaturePair, Features, KnnConfig, KnnResult, LinearProbeConfig, LinearProbeResult,
    ResultTable, knn, linear_probe,
};

/// Settings of both measurements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Nearest neighbours.
    pub knn: KnnConfig,
    /// Linear probe.
    pub linear_probe: LinearProbeConfig,
}

impl EvalConfig {
    /// Whether the settings suit `train_count` training images: worth asking before the features
    /// are made.
    ///
    /// # Errors
    /// [`EvalError::InvalidSetting`] naming the setting and its range.
    pub fn check(&self, train_count: usize) -> Result<(), EvalError> {
        self.knn.check(train_count)?;
        self.linear_probe.check()
    }
}

/// Both measurements of one representation, with their protocols.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Nearest neighbours.
    pub knn: KnnResult,
    /// Linear probe.
    pub linear_probe: LinearProbeResult,
}

impl Evaluation {
    /// Measures `features` both ways.
    ///
    /// # Errors
    /// Those of [`knn`] and [`linear_probe`].
    pub fn new(features: &FeaturePair, config: &EvalConfig) -> Result<Self, EvalError> {
        Ok(Self {
            knn: knn(features, &config.knn)?,
            linear_probe: linear_probe(features, &config.linear_probe)?,
        })
    }

    /// The two figures alone.
    pub fn top1(&self) -> Top1 {
        Top1 {
            knn_top1: self.knn.accuracy.top1,
            linear_top1: self.linear_probe.accuracy.top1,
        }
    }
}

/// Both figures of one representation, in percent (0 to 100).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Top1 {
    /// Weighted nearest neighbours, see [`knn`].
    pub knn_top1: f64,
    /// Linear probe, see [`linear_probe`].
    pub linear_top1: f64,
}

/// The final table of a run. As JSON:
/// `{"pretrained": {"knn_top1", "linear_top1"}, "untrained": {…}, "raw_pixels": {…}}`, in percent;
/// baselines that were not measured are absent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparisonTable {
    /// The encoder after pre-training.
    pub pretrained: Top1,
    /// The same encoder at initialisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Top1>,
    /// The pixels themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_pixels: Option<Top1>,
}

impl fmt::Display for ComparisonTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = ResultTable::new(&["kNN top-1 %", "linear top-1 %"]);
        let rows = [
            ("pre-trained", Some(self.pretrained)),
            ("untrained", self.untrained),
            ("raw pixels", self.raw_pixels),
        ];
        for (name, top1) in rows {
            if let Some(top1) = top1 {
                table.add(name, &[top1.knn_top1, top1.linear_top1]);
            }
        }
        table.fmt(f)
    }
}

/// All measurements behind a [`ComparisonTable`], with their protocols.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The encoder after pre-training.
    pub pretrained: Evaluation,
    /// The same encoder at initialisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Evaluation>,
    /// The pixels themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_pixels: Option<Evaluation>,
}

impl Comparison {
    /// The figures alone.
    pub fn table(&self) -> ComparisonTable {
        ComparisonTable {
            pretrained: self.pretrained.top1(),
            untrained: self.untrained.as_ref().map(Evaluation::top1),
            raw_pixels: self.raw_pixels.as_ref().map(Evaluation::top1),
        }
    }
}

/// Measures a representation and the baselines that are given, all of the same data in the same way.
///
/// # Errors
/// Those of [`knn`] and [`linear_probe`], and [`EvalError::DifferentImages`] if the representations
/// were not made from the same images.
pub fn compare(
    pretrained: &FeaturePair,
    untrained: Option<&FeaturePair>,
    raw_pixels: Option<&FeaturePair>,
    config: &EvalConfig,
) -> Result<Comparison, EvalError> {
    for other in [untrained, raw_pixels].into_iter().flatten() {
        check_same_images(pretrained.train(), other.train())?;
        check_same_images(pretrained.test(), other.test())?;
    }
    let measured = |features: &FeaturePair| Evaluation::new(features, config);
    Ok(Comparison {
        pretrained: measured(pretrained)?,
        untrained: untrained.map(measured).transpose()?,
        raw_pixels: raw_pixels.map(measured).transpose()?,
    })
}

/// The labels in their order are the only trace of the images in the features.
fn check_same_images(a: &Features, b: &Features) -> Result<(), EvalError> {
    if a.labels() == b.labels() {
        return Ok(());
    }
    Err(EvalError::DifferentImages {
        a: a.origin().to_string(),
        b: b.origin().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    /// Two classes on a line, `gap` apart, with a spread of 1.
    fn pair(representation: &str, gap: f32) -> FeaturePair {
        let part = |split: &str, count: usize| {
            let origin = Origin::new("line", split, representation);
            let labels: Vec<u32> = (0..count as u32).map(|row| row % 2).collect();
            let spread = |row: usize| ((row * 7) % count) as f32 / count as f32;
            let values = (0..count).flat_map(|row| [1.0, gap * (row % 2) as f32 + spread(row)]);
            Features::new(origin, values.collect(), 2, labels, 2).unwrap()
        };
        FeaturePair::new(part("train", 100), part("test", 40)).unwrap()
    }

    #[test]
    fn the_better_representation_gets_the_better_row() {
        let (good, bad, none) = (pair("good", 2.0), pair("bad", 0.5), pair("none", 0.0));
        let config = EvalConfig::default();
        let comparison = compare(&good, Some(&bad), Some(&none), &config).unwrap();
        let table = comparison.table();
        assert_eq!(
            table.pretrained,
            Top1 {
                knn_top1: 100.0,
                linear_top1: 100.0
            }
        );
        let (untrained, pixels) = (table.untrained.unwrap(), table.raw_pixels.unwrap());
        for (better, worse) in [(table.pretrained, untrained), (untrained, pixels)] {
            assert!(
                better.knn_top1 > worse.knn_top1 + 10.0,
                "{better:?} {worse:?}"
            );
            assert!(
                better.linear_top1 > worse.linear_top1 + 10.0,
                "{better:?} {worse:?}"
            );
        }
        assert_eq!(
            comparison
                .raw_pixels
                .unwrap()
                .knn
                .protocol
                .train
                .origin
                .representation,
            "none"
        );
    }

    #[test]
    fn baselines_may_be_left_out() {
        let comparison = compare(&pair("good", 2.0), None, None, &EvalConfig::default()).unwrap();
        let text = comparison.table().to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
        let json = serde_json::to_value(comparison.table()).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 1, "{json}");
        assert_eq!(
            serde_json::from_value::<ComparisonTable>(json).unwrap(),
            comparison.table()
        );
    }

    #[test]
    fn json_and_text_are_as_documented() {
        let top1 = |knn_top1, linear_top1| Top1 {
            knn_top1,
            linear_top1,
        };
        let table = ComparisonTable {
            pretrained: top1(79.0, 84.25),
            untrained: Some(top1(70.0, 77.0)),
            raw_pixels: Some(top1(83.5, 84.0)),
        };
        let json = serde_json::json!({
            "pretrained": {"knn_top1": 79.0, "linear_top1": 84.25},
            "untrained": {"knn_top1": 70.0, "linear_top1": 77.0},
            "raw_pixels": {"knn_top1": 83.5, "linear_top1": 84.0},
        });
        assert_eq!(serde_json::to_value(table).unwrap(), json);
        assert_eq!(
            serde_json::from_value::<ComparisonTable>(json).unwrap(),
            table
        );
        let text = "              kNN top-1 %   linear top-1 %\n\
                    pre-trained         79.00            84.25\n\
                    untrained           70.00            77.00\n\
                    raw pixels          83.50            84.00";
        assert_eq!(table.to_string(), text);
    }

    #[test]
    fn settings_can_be_checked_before_there_are_features() {
        let mut config = EvalConfig::default();
        config.check(20).unwrap();
        assert!(
            config
                .check(19)
                .unwrap_err()
                .to_string()
                .starts_with("neighbours")
        );
        config.linear_probe.epochs = 0;
        assert!(
            config
                .check(20)
                .unwrap_err()
                .to_string()
                .starts_with("epochs")
        );
    }

    #[test]
    fn different_images_are_refused() {
        let a = pair("a", 1.0);
        let swapped = FeaturePair::new(a.test().clone(), a.train().clone()).unwrap();
        let error = compare(&a, Some(&a), Some(&swapped), &EvalConfig::default()).unwrap_err();
        assert!(
            matches!(error, EvalError::DifferentImages { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("a of line (train)"), "{error}");
    }
}
