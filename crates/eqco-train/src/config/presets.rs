//! The presets: complete configurations with the figures of their papers.

use serde::Deserialize;

use super::TrainConfig;
use super::error::ConfigError;
use super::wording;

/// A named starting point. The text is a TOML file whose leading comment describes it.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// What `--preset` takes.
    pub name: &'static str,
    text: &'static str,
}

macro_rules! presets {
    ($($name:literal),+ $(,)?) => {
        [$(Preset { name: $name, text: include_str!(concat!("../../presets/", $name, ".toml")) }),+]
    };
}

const ALL: [Preset; 5] = presets![
    "demo",
    "simo-cifar-r18",
    "simo-imagenet-r50",
    "mocov2-imagenet-r50",
    "simclr-imagenet-r50",
];

impl Preset {
    /// All presets, the default one first.
    pub fn all() -> &'static [Self] {
        &ALL
    }

    /// The preset with this name.
    ///
    /// # Errors
    /// [`ConfigError::UnknownPreset`] with the nearest name.
    pub fn named(name: &str) -> Result<Self, ConfigError> {
        let found = ALL.iter().find(|preset| preset.name == name);
        found.copied().ok_or_else(|| ConfigError::UnknownPreset {
            name: name.to_owned(),
            nearest: wording::nearest_name(name, ALL.iter().map(|preset| preset.name)).to_owned(),
        })
    }

    /// What it is, what to expect from it on which hardware, and where its figures come from: the comment at its head.
    pub fn description(&self) -> Vec<&'static str> {
        let comment = self.text.lines().map_while(|line| line.strip_prefix('#'));
        comment.map(str::trim).collect()
    }

    /// The keys that it sets.
    pub(super) fn table(&self) -> Result<toml::Table, ConfigError> {
        toml::from_str(self.text).map_err(|error| self.broken(&error))
    }

    /// The complete configuration.
    ///
    /// # Errors
    /// [`ConfigError::BrokenPreset`]; the tests make sure that there is none.
    pub fn config(&self) -> Result<TrainConfig, ConfigError> {
        let config =
            TrainConfig::deserialize(self.table()?).map_err(|error| self.broken(&error))?;
        Ok(config.completed())
    }

    fn broken(&self, error: &toml::de::Error) -> ConfigError {
        let problem = error.to_string().trim_end().to_owned();
        ConfigError::BrokenPreset {
            name: self.name.to_owned(),
            problem,
        }
    }
}
