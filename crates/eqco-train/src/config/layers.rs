//! Layers of settings over a complete configuration: preset < file < flags.
//!
//! Nothing here knows a single key. The keys and their types come from the serialised preset and from the
//! configuration's own `Deserialize`, so that a key exists as soon as some crate's config type has the field.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use eqco_models::DeviceName;
use eqco_models::backend::BackendName;
use serde::Deserialize;
use serde_json::Value;

use super::error::ConfigError;
use super::presets::Preset;
use super::{Resolved, TrainConfig, alpha_rule, wording};

/// Where a value came from, if not from the preset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a configuration file.
    File {
        /// The file as the user named it.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A flag, as typed: `--alpha`, or `--set`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Sections and field, joined by dots: `loss.temperature`.
    pub key: String,
    /// The value, never an object.
    pub value: Value,
    /// Who says so.
    pub origin: Origin,
}

impl Setting {
    /// Whether the key chooses what the other keys of its section are.
    fn is_selector(&self) -> bool {
        self.key.ends_with(".name") || self.key.ends_with(".kind")
    }
}

/// Puts the settings of one layer into the order in which they take effect: what chooses before what is chosen.
pub(super) fn in_order(mut layer: Vec<Setting>) -> Vec<Setting> {
    layer.sort_by_key(|setting| !setting.is_selector());
    layer
}

/// Applies `settings` to a preset in order, a later one over an earlier one.
///
/// What the preset leaves out keeps following its default until something sets it. So a new `name` or `kind` of a
/// section brings its own defaults along; keys that only the old one had are dropped.
///
/// # Errors
/// [`ConfigError::UnknownKey`] for a key that the complete configuration does not have, and
/// [`ConfigError::InvalidValue`] for a value that its field does not accept.
pub(super) fn apply(preset: &Preset, settings: Vec<Setting>) -> Result<Resolved, ConfigError> {
    let tree = json(&toml::Value::Table(preset.table()?));
    apply_to(tree, preset.config()?, preset.name, settings)
}

/// The same over a complete configuration that came from `preset`.
pub(super) fn apply_to_stored(
    stored: &TrainConfig,
    preset: &'static str,
    settings: Vec<Setting>,
) -> Result<Resolved, ConfigError> {
    apply_to(
        tree_of(stored),
        stored.clone().completed(),
        preset,
        settings,
    )
}

fn apply_to(
    mut tree: Value,
    mut config: TrainConfig,
    preset: &'static str,
    settings: Vec<Setting>,
) -> Result<Resolved, ConfigError> {
    let mut origins = BTreeMap::new();
    for setting in settings {
        place(&mut tree, &config, &setting)?;
        config = read_tree(&mut tree, &setting)?.completed();
        origins.insert(setting.key, setting.origin);
    }
    // What was set below was set for the device that was set below: a preset's kernels are those of a CPU.
    if !origins.contains_key("backend") {
        config.backend = match (config.device, config.backend) {
            (DeviceName::Cpu, BackendName::Cuda) => BackendName::Portable,
            (DeviceName::Cpu, backend) => backend,
            _ => BackendName::Cuda,
        };
    }
    Ok(Resolved {
        config,
        preset,
        origins,
    })
}

/// Reads the tree after `setting` has been placed in it.
fn read_tree(tree: &mut Value, setting: &Setting) -> Result<TrainConfig, ConfigError> {
    loop {
        let complete =
            alpha_rule::filled_in(tree).map_err(|problem| ConfigError::InvalidValue {
                origin: setting.origin.clone(),
                key: setting.key.clone(),
                problem,
            })?;
        let error = match TrainConfig::deserialize(complete.as_ref()) {
            Ok(config) => return Ok(config),
            Err(error) => error.to_string(),
        };
        let foreign = wording::unknown_field(&error).filter(|_| setting.is_selector());
        if !foreign.is_some_and(|field| remove_sibling(tree, &setting.key, field)) {
            let (origin, key) = (setting.origin.clone(), setting.key.clone());
            let problem = wording::expected_found(&error);
            return Err(ConfigError::InvalidValue {
                origin,
                key,
                problem,
            });
        }
    }
}

/// Reads a TOML file into settings, each with its line.
///
/// # Errors
/// [`ConfigError::Unreadable`] and [`ConfigError::Syntax`].
pub fn read_file(path: &Path) -> Result<Vec<Setting>, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    };
    let table: toml::Table = toml::from_str(&text).map_err(syntax)?;
    let positions = toml::de::DeTable::parse(&text).map_err(syntax)?;

    let mut settings = Vec::new();
    collect_leaves(
        &table,
        positions.get_ref(),
        "",
        &mut |key, value, offset| {
            let line = 1 + text[..offset].matches('\n').count();
            let origin = Origin::File {
                path: path.to_owned(),
                line,
            };
            settings.push(Setting { key, value, origin });
        },
    );
    Ok(settings)
}

/// Reads `KEY=VALUE` from `--set`, see [`read_value`].
///
/// # Errors
/// [`ConfigError::NoAssignment`].
pub fn read_assignment(text: &str) -> Result<Setting, ConfigError> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(ConfigError::NoAssignment {
            text: text.to_owned(),
        });
    };
    let origin = Origin::Flag("--set".to_owned());
    Ok(Setting {
        key: key.trim().to_owned(),
        value: read_value(value),
        origin,
    })
}

/// Reads a value from the command line. It is TOML; what is not TOML is text, so that `decoupled` needs no quotes
/// inside the shell's.
pub fn read_value(text: &str) -> Value {
    let table = toml::from_str::<toml::Table>(&format!("value = {text}")).ok();
    let value = table
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"));
    value.map_or_else(|| Value::from(text), |value| json(&value))
}

/// Every dotted key of a complete configuration, in order.
pub fn known_keys(config: &TrainConfig) -> Vec<String> {
    let mut keys = Vec::new();
    collect_keys(&tree_of(config), "", &mut keys);
    keys
}

/// The value at a dotted key; null where the configuration has no such key.
pub fn value_of(config: &TrainConfig, key: &str) -> Value {
    let pointer = format!("/{}", key.replace('.', "/"));
    tree_of(config)
        .pointer(&pointer)
        .cloned()
        .unwrap_or_default()
}

fn tree_of(config: &TrainConfig) -> Value {
    serde_json::to_value(config).expect("a configuration has text keys and finite numbers")
}

fn collect_keys(tree: &Value, prefix: &str, keys: &mut Vec<String>) {
    match tree {
        Value::Object(fields) => {
            fields
                .iter()
                .for_each(|(name, value)| collect_keys(value, &joined(prefix, name), keys));
        }
        _ => keys.push(prefix.to_owned()),
    }
}

/// Puts one value into the tree of what has been set, at a key that the complete configuration must have.
fn place(tree: &mut Value, config: &TrainConfig, setting: &Setting) -> Result<(), ConfigError> {
    let complete = tree_of(config);
    match setting
        .key
        .split('.')
        .try_fold(&complete, |tree, part| tree.get(part))
    {
        Some(Value::Object(fields)) => {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            let problem = format!("this is a section with the keys {}", names.join(", "));
            let (origin, key) = (setting.origin.clone(), setting.key.clone());
            return Err(ConfigError::InvalidValue {
                origin,
                key,
                problem,
            });
        }
        Some(_) => (),
        None => {
            return Err(ConfigError::UnknownKey {
                origin: setting.origin.clone(),
                key: setting.key.clone(),
                nearest: wording::nearest_key(&setting.key, &known_keys(config)),
            });
        }
    }
    let mut place = tree;
    for part in setting.key.split('.') {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        place = &mut place[part];
    }
    *place = setting.value.clone();
    Ok(())
}

/// Removes the field `name` beside the field `key`. Returns whether it was there.
fn remove_sibling(tree: &mut Value, key: &str, name: &str) -> bool {
    let section = key.rsplit_once('.').map_or("", |(section, _)| section);
    let fields = section
        .split('.')
        .try_fold(tree, |tree, part| tree.get_mut(part));
    let fields = fields.and_then(Value::as_object_mut);
    fields.is_some_and(|fields| fields.remove(name).is_some())
}

/// Calls `visit` with the dotted key, the value and the byte offset of every value that is not a table.
fn collect_leaves(
    table: &toml::Table,
    positions: &toml::de::DeTable<'_>,
    prefix: &str,
    visit: &mut dyn FnMut(String, Value, usize),
) {
    for (name, position) in positions {
        let key = joined(prefix, name.get_ref());
        match (&table[name.get_ref().as_ref()], position.get_ref()) {
            (toml::Value::Table(inner), toml::de::DeValue::Table(inner_positions)) => {
                collect_leaves(inner, inner_positions, &key, visit);
            }
            (value, _) => visit(key, json(value), name.span().start),
        }
    }
}

/// TOML to JSON. Infinities and NaN, which JSON does not have, become their names, which no number field accepts.
fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) if !number.is_finite() => Value::from(number.to_string()),
        toml::Value::Float(number) => Value::from(*number),
        toml::Value::Boolean(flag) => Value::from(*flag),
        toml::Value::Datetime(moment) => Value::from(moment.to_string()),
        toml::Value::Array(items) => items.iter().map(json).collect(),
        toml::Value::Table(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), json(value)))
            .collect(),
    }
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}
