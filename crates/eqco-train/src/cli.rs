//! The command line: what can be typed, and which configuration key each flag sets.

mod images;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use eqco_models::DeviceName;
use serde_json::Value;

use crate::config::{
    ConfigError, EQUIVALENT_BATCH, Origin, Preset, Resolved, Setting, read_assignment, read_value,
};
use crate::gpu_check::Part;
use crate::resume::Resume;

pub use images::{InspectArgs, PackArgs, PartsArg, SplitArg};

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
    /// Pre-train once for every combination of the values of some settings, and tabulate the results
    Sweep(SweepArgs),
    /// Print the configuration that pretrain would use, and where each value comes from
    ShowConfig(ConfigArgs),
    /// Show what a data set holds and what training sees of it, and find damaged images
    Inspect(InspectArgs),
    /// Pack a data set into one file that is read through a memory map
    Pack(PackArgs),
    /// Do a step again whose loss or gradient was not finite, and show what went wrong first
    Replay(ReplayArgs),
    /// Report what this machine and this build can use, and what would make training faster
    Doctor,
    /// Compare a GPU's kernels and training with the CPU's, time them, and compare with PyTorch's
    GpuCheck(GpuCheckArgs),
}

/// Flags of `replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The file that the step has left in its run folder
    #[arg(value_name = "RUN/nonfinite-step-N.json")]
    pub dump: PathBuf,
}

/// Flags of `gpu-check`.
#[derive(Args, Debug)]
pub struct GpuCheckArgs {
    /// The GPU
    #[arg(long, value_name = "NAME", default_value = "cuda:0")]
    pub device: DeviceName,
    /// Of the shapes and values that kernels are checked with
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    /// Numbers alone: time nothing, and leave PyTorch out
    #[arg(long)]
    pub quick: bool,
    /// Steps that are timed in one turn
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub steps: u64,
    /// The Python whose PyTorch is compared with
    #[arg(long, value_name = "PATH", default_value = "python3")]
    pub python: PathBuf,
    /// Compare with no PyTorch
    #[arg(long, conflicts_with = "python")]
    pub no_pytorch: bool,
    /// Write everything that was found to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Seconds after which no further part begins, and what is running is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 540, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub limit: u64,
    /// Run one part in this process and print its outcome as JSON, as the command does for every part
    #[arg(long, value_name = "NAME")]
    pub part: Option<Part>,
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
    /// Go on with the run in this folder from its newest sound checkpoint; settings are those of the run, but for what may
    /// change. `auto` goes on in --out if a run is there, and begins one if not
    #[arg(long, value_name = "FOLDER|auto")]
    pub resume: Option<Resume>,
    /// Report the plan, take one step in memory, write a checkpoint to a temporary file and read it back, evaluate one batch, and
    /// tell memory and time; leave nothing behind
    #[arg(long)]
    pub dry_run: bool,
    /// Time every operation, print a table of time and bytes at the end, and write profile.json
    #[arg(long)]
    pub profile: bool,
}

/// Flags of `sweep`.
#[derive(Args, Debug, Default)]
pub struct SweepArgs {
    /// A setting and its values, e.g. negatives=4,16,64; the name of a flag or any key of `show-config`; may be repeated.
    /// They stand above any other value of the setting
    #[arg(long, value_name = "KEY=A,B,C", required = true)]
    pub vary: Vec<String>,
    /// Runs of every combination, with consecutive seeds from the configuration's on
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// Folder of the sweep, one folder below it for every run; runs that are complete there are kept
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Runs side by side, as far as memory allows; 0 for as many as there are cores for
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub jobs: usize,
    /// List the runs, time some steps to estimate how long they will take, and stop there
    #[arg(long)]
    pub plan: bool,
    /// Where the settings that are not varied come from.
    #[command(flatten)]
    pub config: ConfigArgs,
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
    /// Images: a manifest's name ("embedded", "fashion-mnist", ...), a path, hf://datasets/OWNER/NAME, or shards
    /// https://HOST/train-{0000..0123}.tar or s3://BUCKET/train-{0000..0123}.tar
    #[arg(long, value_name = "NAME|PATH", help_heading = SETTINGS)]
    pub data: Option<String>,
    /// How the images at that path lie on disk: folder, idx, cifar10, cifar100, imagenet-tar, shards, parquet or packed [default: what is found]
    #[arg(long, value_name = "NAME", help_heading = SETTINGS)]
    pub format: Option<String>,
    /// Use only this many training images, in balanced classes; 0 for all
    #[arg(long, value_name = "IMAGES", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub limit: Option<String>,
    /// Side of the square views in pixels
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub image_size: Option<String>,
    /// Where views are made: cpu, in the loader's threads, or device, on the GPU that trains
    #[arg(long, value_name = "NAME", help_heading = SETTINGS)]
    pub augment_on: Option<String>,
    /// Images per step
    #[arg(long, value_name = "IMAGES", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub batch_size: Option<String>,
    /// Images whose activations are in memory at a time (gradient accumulation); 0 for the whole batch
    #[arg(long, value_name = "IMAGES", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub micro_batch: Option<String>,
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
    /// Number of negatives to be equivalent to, "auto" for that of the method's recipe, "infonce", or "decoupled" (DCL)
    #[arg(long, value_name = "COUNT|NAME", allow_negative_numbers = true, help_heading = SETTINGS)]
    pub alpha: Option<String>,
    /// Set alpha to the negatives that a query has in a batch of so many images; for simo and simclr
    #[arg(long, value_name = "IMAGES", conflicts_with = "alpha", help_heading = SETTINGS)]
    pub equivalent_batch: Option<String>,
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
        let named = FLAGS.iter().filter_map(|flag| {
            let text = (flag.given)(self)?;
            Some(Ok(Setting {
                key: flag.key.to_owned(),
                value: flag.read(text),
                origin: Origin::Flag(format!("--{}", flag.name)),
            }))
        });
        named
            .chain(self.set.iter().map(|text| read_assignment(text)))
            .collect()
    }
}

/// A flag that stands for a key of the configuration.
pub struct Flag {
    /// Its name without the dashes.
    pub name: &'static str,
    /// The key.
    pub key: &'static str,
    kind: FlagKind,
    given: fn(&ConfigArgs) -> Option<&str>,
}

/// What the text behind a flag means.
#[derive(Clone, Copy)]
enum FlagKind {
    /// Text, even where it looks like a number, as the name of a folder may.
    Text,
    /// TOML, or text where it is not.
    Value,
    /// The size of a batch, whose negatives alpha is to be.
    Batch,
}

impl Flag {
    /// The flag with this name, without the dashes.
    pub fn named(name: &str) -> Option<&'static Self> {
        FLAGS.iter().find(|flag| flag.name == name)
    }

    /// What `text` behind the flag means.
    pub fn read(&self, text: &str) -> Value {
        match self.kind {
            FlagKind::Text => Value::from(text),
            FlagKind::Value => read_value(text),
            FlagKind::Batch => Value::from(format!("{EQUIVALENT_BATCH}{text}")),
        }
    }
}

macro_rules! flags {
    ($($kind:ident $name:literal $field:ident => $key:literal),+ $(,)?) => {
        &[$(Flag {
            name: $name,
            key: $key,
            kind: FlagKind::$kind,
            given: |arguments| arguments.$field.as_deref(),
        }),+]
    };
}

/// All of them.
pub const FLAGS: &[Flag] = flags![
    Text "data" data => "data.source",
    Text "format" format => "data.format",
    Text "method" method => "method.name",
    Text "encoder" encoder => "encoder.architecture",
    Text "stem" stem => "encoder.stem",
    Text "augment-on" augment_on => "data.augment_on",
    Text "precision" precision => "precision",
    Text "device" device => "device",
    Text "backend" backend => "backend",
    Value "limit" limit => "data.limit",
    Value "image-size" image_size => "data.recipe.image_size",
    Value "batch-size" batch_size => "data.loader.batch_size",
    Value "micro-batch" micro_batch => "method.micro_batch",
    Value "width" width => "encoder.width",
    Value "negatives" negatives => "method.negative_count",
    Value "alpha" alpha => "loss.alpha",
    Batch "equivalent-batch" equivalent_batch => "loss.alpha",
    Value "temperature" temperature => "loss.temperature",
    Value "epochs" epochs => "schedule.epochs",
    Value "lr" lr => "schedule.base_learning_rate",
    Value "seed" seed => "seed",
    Value "threads" threads => "threads",
];
