//! Serialises a loader's settings without their seed, for a run has one seed and `TrainConfig` names it.

use eqco_data::loader::LoaderConfig;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::Value;

pub(super) fn serialize<S: Serializer>(
    loader: &LoaderConfig,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut fields = serde_json::to_value(loader).map_err(ser::Error::custom)?;
    if let Value::Object(fields) = &mut fields {
        fields.remove("seed");
    }
    fields.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<LoaderConfig, D::Error> {
    let fields = Value::deserialize(deserializer)?;
    if fields.get("seed").is_some() {
        return Err(de::Error::custom(
            "the loader has no seed of its own, set the run's `seed`",
        ));
    }
    LoaderConfig::deserialize(fields).map_err(de::Error::custom)
}
