//! The command line: what can be typed, and which configuration key each flag sets.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use crate::config::{ConfigError, Origin, Preset, Resolved, Setting, read_assignment, read_value};

/// Self-supervised contrastive pre-training of image encoders.
///
/// Without a command it pre-trains: `eqco-train` alone runs the demo preset on the embedded images.
#[derive(Debug, Parser)]
#[command(name = "eqco-train", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `pretrain` if absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `pretrain`, for when no command is given.
    #[command(flatten)]
    pub pretrain: PretrainArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pre-train an encoder (the default command)
    Pretrain(PretrainArgs),
    /// List the presets with their expected results and sources
    Presets,
    /// Print the configuration that pretrain would use, and where each value comes from
    ShowConfig(ConfigArgs),
    /// Report what this machine and this build can use, and what would make training faster
    Doctor,
}

/// Flags of `pretrain`.
#[derive(Args, Debug, Default)]
pub struct PretrainArgs {
    /// Where settings come from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Folder of the run; must not hold a run yet [default: runs/PRESET-seedSEED-TIME]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Check everything up to the first step and report the plan, but train and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Time every operation, print a table of time and bytes at the end, and write profile.json
    #[arg(long)]
    pub profile: bool,
}

/// Layers of settings: preset, then file, then flags.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Starting point, see `eqco-train presets` [default: demo]
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// TOML file with settings that override the preset's
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Images: a manifest's name ("embedded", "fashion-mnist", ...) or a path
    #[arg(long, value_name = "NAME|PATH", help_heading = SETTINGS)]
    pub data: Option<String>,
    /// Use only this many training images, in balanced classes; 0 for all
    #[arg(long, value_name = "IMAGES", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub limit: Option<String>,
    /// Side of the square views in pixels
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub image_size: Option<String>,
    /// Images per step
    #[arg(long, value_name = "IMAGES", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub batch_size: Option<String>,
    /// Method: simo, moco_v2 or simclr
    #[arg(long, value_name = "NAME", help_heading = SETTINGS)]
    pub method: Option<String>,
    /// Backbone: resnet18, resnet34, resnet50 or resnet101
    #[arg(long, value_name = "NAME", help_heading = SETTINGS)]
    pub encoder: Option<String>,
    /// Channels of the backbone's first stage; 64 is the standard network
    #[arg(long, value_name = "CHANNELS", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub width: Option<String>,
    /// First layers of the backbone: imagenet or cifar
    #[arg(long, value_name = "NAME", help_heading = SETTINGS)]
    pub stem: Option<String>,
    /// Negatives per query (K); for moco_v2 the length of its queue, for simclr 0
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub negatives: Option<String>,
    /// Number of negatives to be equivalent to, or "infonce", or "decoupled" (DCL)
    #[arg(long, value_name = "COUNT|NAME", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub alpha: Option<String>,
    /// Temperature that similarities are divided by
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub temperature: Option<String>,
    /// Passes over the training images
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub epochs: Option<String>,
    /// Base learning rate, before scaling with the batch size
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub lr: Option<String>,
    /// Seed of weights, order, views and negatives
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub seed: Option<String>,
    /// Threads of the kernels; 0 for one a core
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub threads: Option<String>,
    /// Arithmetic of activations
    #[arg(long, value_name = "NAME", help_heading = SETTINGS)]
    pub precision: Option<String>,
    /// Where to train
    #[arg(long, value_name = "NAME", help_heading = SETTINGS)]
    pub device: Option<String>,
    /// Family of kernels
    #[arg(long, value_name = "NAME", help_heading = SETTINGS)]
    pub backend: Option<String>,
    /// Any other key of `eqco-train show-config`, e.g. --set data.recipe.hue=0.1; may be repeated
    #[arg(long, value_name = "KEY=VALUE", help_heading = SETTINGS)]
    pub set: Vec<String>,
}

const SETTINGS: &str = "Settings (preset < --config < these)";

impl ConfigArgs {
    /// The configuration that these arguments stand for.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve(&self) -> Result<Resolved, ConfigError> {
        let preset = self.preset.as_deref().unwrap_or(Preset::all()[0].name);
        Resolved::new(preset, self.config.as_deref(), self.settings()?)
    }

    /// The settings that the flags stand for, `--set` after the named ones.
    ///
    /// # Errors
    /// [`ConfigError::NoAssignment`] for a `--set` without `=`.
    pub fn settings(&self) -> Result<Vec<Setting>, ConfigError> {
        // Text stays text even where it looks like a number, as the name of a folder may.
        let text = [
            ("--data", "data.source", &self.data),
            ("--method", "method.name", &self.method),
            ("--encoder", "encoder.architecture", &self.encoder),
            ("--stem", "encoder.stem", &self.stem),
            ("--precision", "precision", &self.precision),
            ("--device", "device", &self.device),
            ("--backend", "backend", &self.backend),
        ];
        let values = [
            ("--limit", "data.limit", &self.limit),
            ("--image-size", "data.recipe.image_size", &self.image_size),
            ("--batch-size", "data.loader.batch_size", &self.batch_size),
            ("--width", "encoder.width", &self.width),
            ("--negatives", "method.negative_count", &self.negatives),
            ("--alpha", "loss.alpha", &self.alpha),
            ("--temperature", "loss.temperature", &self.temperature),
            ("--epochs", "schedule.epochs", &self.epochs),
            ("--lr", "schedule.base_learning_rate", &self.lr),
            ("--seed", "seed", &self.seed),
            ("--threads", "threads", &self.threads),
        ];
        let text = text
            .into_iter()
            .filter_map(|(flag, key, value)| Some((flag, key, Value::from(value.as_deref()?))));
        let values = values
            .into_iter()
            .filter_map(|(flag, key, value)| Some((flag, key, read_value(value.as_deref()?))));
        let named = text.chain(values).map(|(flag, key, value)| {
            let origin = Origin::Flag(flag.to_owned());
            Ok(Setting {
                key: key.to_owned(),
                value,
                origin,
            })
        });
        named
            .chain(self.set.iter().map(|text| read_assignment(text)))
            .collect()
    }
}
