//! The settings of a run that a report speaks about, from its `config.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use eqco_core::Alpha;
use serde::Deserialize;
use toml::Value;

use super::ReportError;
use super::chart::significant;
use crate::KnnConfig;

/// Every setting of a run under its full name, such as `loss.alpha`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    /// The file as it is.
    pub(crate) text: String,
    values: BTreeMap<String, Value>,
}

impl Settings {
    /// Reads the text of a `config.toml`.
    ///
    /// # Errors
    /// [`ReportError::Malformed`] if it is not TOML.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ReportError> {
        let table: toml::Table =
            text.parse()
                .map_err(|error: toml::de::Error| ReportError::Malformed {
                    path: path.to_owned(),
                    reason: format!("expected TOML, got {}", error.message()),
                })?;
        let mut values = BTreeMap::new();
        flatten("", Value::Table(table), &mut values);
        Ok(Self {
            text: text.to_owned(),
            values,
        })
    }

    /// All settings by name.
    pub(crate) fn values(&self) -> &BTreeMap<String, Value> {
        &self.values
    }

    /// A setting as a number.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        match self.values.get(name)? {
            Value::Integer(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// A setting as a count.
    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        self.values.get(name)?.as_integer()?.try_into().ok()
    }

    /// A setting as text.
    pub(crate) fn word(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_str()
    }

    /// The negative count that the loss is equivalent to.
    pub(crate) fn alpha(&self) -> Option<Alpha> {
        Alpha::deserialize(self.values.get("loss.alpha")?.clone()).ok()
    }

    /// The method's name as its paper writes it.
    pub(crate) fn method(&self) -> Option<&str> {
        Some(match self.word("method.name")? {
            "simo" => "SiMo",
            "moco_v2" => "MoCo v2",
            "simclr" => "SimCLR",
            other => other,
        })
    }

    /// Settings of the nearest-neighbour evaluation, the library's own where the run has none.
    pub(crate) fn knn(&self) -> KnnConfig {
        let usual = KnnConfig::default();
        KnnConfig {
            neighbours: (self.count("evaluation.knn.neighbours"))
                .map_or(usual.neighbours, |count| count as usize),
            temperature: (self.number("evaluation.knn.temperature")).unwrap_or(usual.temperature),
        }
    }
}

/// The rule of the loss as figures call it.
pub(crate) fn rule(alpha: Alpha) -> String {
    match alpha {
        Alpha::Infonce => "InfoNCE".to_owned(),
        Alpha::Equivalent(alpha) => format!("EqCo α={}", significant(alpha, 6)),
        Alpha::Decoupled => "DCL".to_owned(),
    }
}

fn flatten(name: &str, value: Value, values: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let below = if name.is_empty() {
                    key
                } else {
                    format!("{name}.{key}")
                };
                flatten(&below, value, values);
            }
        }
        other => {
            values.insert(name.to_owned(), other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_their_full_names() {
        let text = "seed = 3\n[loss]\nalpha = 256\n[method]\nname = \"moco_v2\"\n[evaluation.knn]\nneighbours = 5\n";
        let settings = Settings::parse(Path::new("config.toml"), text).unwrap();
        assert_eq!(
            (settings.number("seed"), settings.count("loss.alpha")),
            (Some(3.0), Some(256))
        );
        assert_eq!(settings.method(), Some("MoCo v2"));
        assert_eq!(
            settings.knn(),
            KnnConfig {
                neighbours: 5,
                temperature: 0.07
            }
        );
        assert_eq!(settings.alpha().map(rule), Some("EqCo α=256".to_owned()));
        assert_eq!(settings.word("absent"), None);
    }

    #[test]
    fn rules_have_the_names_of_their_papers() {
        assert_eq!(rule(Alpha::Equivalent(65_536.0)), "EqCo α=65,536");
        assert_eq!(
            (&*rule(Alpha::Infonce), &*rule(Alpha::Decoupled)),
            ("InfoNCE", "DCL")
        );
        let error = Settings::parse(Path::new("r/config.toml"), "a = [")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("r/config.toml: expected TOML, got "),
            "{error}"
        );
    }
}
