//! What a step's record says about its batch, as far as a report shows it.

use serde::Deserialize;

/// One training step. Values that are absent or not finite are NaN.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(crate) struct StepRecord {
    pub(crate) step: u64,
    #[serde(default)]
    pub(crate) epoch: u64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) learning_rate: f64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) loss: f64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) contrast_top1: f64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) positive_similarity: f64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) negative_similarity: f64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) gradient_scale: f64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) gradient_scale_deviation: f64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) guaranteed_bound: f64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) paper_bound: f64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) alignment: f64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) uniformity: f64,
    #[serde(default = "nan", deserialize_with = "number")]
    pub(crate) effective_rank: f64,
}

pub(crate) fn nan() -> f64 {
    f64::NAN
}

/// A number; `null`, which JSON has in the place of NaN and infinity, is NaN.
pub(crate) fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_or_null_is_not_a_number() {
        let text = r#"{"step": 3, "loss": 2.5, "gradient_scale": null, "new": [1]}"#;
        let record: StepRecord = serde_json::from_str(text).unwrap();
        assert_eq!((record.step, record.epoch, record.loss), (3, 0, 2.5));
        assert!(record.gradient_scale.is_nan() && record.alignment.is_nan());
    }
}
