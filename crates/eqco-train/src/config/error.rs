//! What can be wrong with a configuration.

use std::io;
use std::path::PathBuf;

use super::layers::Origin;

/// An error in the configuration: where it stands, which key, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No preset has this name.
    #[error("no preset is called `{name}`")]
    UnknownPreset {
        /// What the user asked for.
        name: String,
        /// The known name that looks most like it.
        nearest: String,
    },
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason the operating system gave.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line.
        message: String,
    },
    /// `--set` without `KEY=VALUE`.
    #[error("--set {text}: expected KEY=VALUE, found no `=`")]
    NoAssignment {
        /// What the user typed.
        text: String,
    },
    /// No such key exists.
    #[error("{origin}: unknown key `{key}`{}", suggestion(nearest.as_deref()))]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The dotted key.
        key: String,
        /// The known key that looks most like it, where one does.
        nearest: Option<String>,
    },
    /// The value has another type, or stands outside its range.
    #[error("{origin}: `{key}`: {problem}")]
    InvalidValue {
        /// Where it stands.
        origin: Origin,
        /// The dotted key.
        key: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The preset itself is not a complete, valid configuration.
    #[error("preset {name}: {problem}")]
    BrokenPreset {
        /// Its name.
        name: String,
        /// What the parser says.
        problem: String,
    },
    /// A section is refused by the part that it sets up.
    #[error("[{section}] {problem}")]
    Section {
        /// The section.
        section: &'static str,
        /// What the part says.
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// Two settings, or a setting and this build, do not fit together.
    #[error("`{key}`: {problem}")]
    Conflict {
        /// The dotted key that would have to change.
        key: &'static str,
        /// What does not fit.
        problem: String,
        /// What to do about it.
        hint: String,
    },
}

impl ConfigError {
    /// What the user can do about it, where there is something to say beyond the error itself.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownPreset { nearest, .. } => Some(format!(
                "did you mean `{nearest}`? `eqco-train presets` lists them all"
            )),
            Self::UnknownKey { nearest: None, .. } => {
                Some("`eqco-train show-config` prints every key".to_owned())
            }
            Self::Unreadable { .. } => Some(
                "`eqco-train show-config > my.toml` writes a complete file to start from, and every run \
                 keeps its own as config.toml in its folder"
                    .to_owned(),
            ),
            Self::Syntax { .. } => Some(
                "the file is TOML: sections in brackets, `key = value` below them; \
                 `eqco-train show-config` prints a complete one"
                    .to_owned(),
            ),
            Self::NoAssignment { .. } => Some("for example --set loss.temperature=0.1".to_owned()),
            Self::Conflict { hint, .. } | Self::Section { hint, .. } => Some(hint.clone()),
            _ => None,
        }
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest
        .map(|key| format!(", did you mean `{key}`?"))
        .unwrap_or_default()
}
