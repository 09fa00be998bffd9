//! The format of a data set, or `auto`, in a configuration, where every key has a value.

use eqco_data::Format;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Stands for the format that is found.
const AUTO: &str = "auto";

/// All values.
const NAMES: [&str; Format::ALL.len() + 1] = {
    let mut names = [AUTO; Format::ALL.len() + 1];
    let mut at = 0;
    while at < Format::ALL.len() {
        names[at + 1] = Format::ALL[at].name();
        at += 1;
    }
    names
};

pub(super) fn serialize<S: Serializer>(
    format: &Option<Format>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(format.map_or(AUTO, Format::name))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Format>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name == AUTO {
        return Ok(None);
    }
    let format = name.parse();
    format
        .map(Some)
        .map_err(|_| Error::unknown_variant(&name, &NAMES))
}
