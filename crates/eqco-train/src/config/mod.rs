//! The configuration of a run, and how it comes about: preset < file < flags.
//!
//! Every section is the config type of the crate that builds from it; what stands here is only what a run as a whole
//! needs. The resolved configuration is written to the run folder and into every checkpoint.

mod alpha_rule;
mod error;
mod format_or_auto;
mod layers;
mod presets;
mod run_seed;
mod show;
mod validate;
mod wording;

use std::collections::BTreeMap;
use std::path::Path;

use eqco_core::LossConfig;
use eqco_data::Format;
use eqco_data::loader::LoaderConfig;
use eqco_data::recipe::RecipeConfig;
use eqco_eval::EvalConfig;
pub use eqco_models::backend::BackendName;
use eqco_models::cuda::CudaConfig;
use eqco_models::method::MethodConfig;
use eqco_models::optim::{OptimizerConfig, ScheduleConfig};
use eqco_models::{DeviceName, EncoderConfig, Normalization, Precision, ProjectionHeadConfig};
use serde::{Deserialize, Serialize};

use crate::collapse::CollapseConfig;
use crate::nonfinite::OnNonfinite;

pub use alpha_rule::{EQUIVALENT_BATCH, explain_margin};
pub use error::ConfigError;
pub use layers::{Origin, Setting, known_keys, read_assignment, read_file, read_value, value_of};
pub use presets::Preset;

/// Everything that determines a run. Serialised, it is the `config.toml` of the run folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of everything random: weights, order, views, negatives. Below 2^63, the range of a TOML integer.
    pub seed: u64,
    /// Threads of the kernels; 0 for one a core. No result depends on it beyond rounding.
    pub threads: usize,
    /// Where to train.
    pub device: DeviceName,
    /// Family of kernels.
    pub backend: BackendName,
    /// Whether 3x3 convolutions may use Winograd's transform: faster, at 2 to 3 times the rounding error of a direct sum.
    #[serde(default = "yes")]
    pub winograd: bool,
    /// Number format of activations. Weights, statistics and the loss are f32 in any case.
    pub precision: Precision,
    /// What a GPU may trade for speed.
    #[serde(default)]
    pub cuda: CudaConfig,
    /// What the run writes.
    #[serde(default)]
    pub run: RunConfig,
    /// Images and views.
    pub data: DataConfig,
    /// Mean and deviation that images are normalised with.
    pub normalization: Normalization,
    /// Backbone.
    pub encoder: EncoderConfig,
    /// From representation to embedding.
    pub projection_head: ProjectionHeadConfig,
    /// How queries, keys and negatives come about.
    pub method: MethodConfig,
    /// Temperature and alpha.
    pub loss: LossConfig,
    /// What turns gradients into steps.
    pub optimizer: OptimizerConfig,
    /// Learning rate over the run, and the run's length.
    pub schedule: ScheduleConfig,
    /// kNN and linear probe of the final table.
    #[serde(default)]
    pub evaluation: EvalConfig,
}

fn yes() -> bool {
    true
}

/// What a run writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// A checkpoint after every so many epochs, at least 1; one is always written at the end, and at a stop.
    pub checkpoint_every_epochs: u64,
    /// And one after every so many steps; 0 for never.
    pub checkpoint_every_steps: u64,
    /// And one where the last is so many minutes old; 0 for never.
    pub checkpoint_every_minutes: f64,
    /// So many of the newest checkpoints stay; 0 for all.
    pub keep_last_checkpoints: usize,
    /// Those at the end of every so many epochs stay, too; 0 for none.
    pub keep_checkpoint_every_epochs: u64,
    /// A line in `metrics.jsonl` every so many steps, at least 1.
    pub log_every_steps: u64,
    /// Alignment, uniformity, effective rank and deviation of the embeddings every so many steps; 0 for never. They are
    /// recorded where a step is.
    pub geometry_every_steps: u64,
    /// What becomes of the run when the loss or the gradient of a step is not finite: stop, or skip the step.
    pub on_nonfinite: OnNonfinite,
    /// So many steps are skipped at most, over the whole run.
    pub most_skipped_steps: u64,
    /// kNN on a few images after every so many epochs; 0 for never. Needs labels.
    pub knn_every_epochs: u64,
    /// Images of each part for that, which are kept in memory.
    pub knn_images: usize,
    /// Measure the encoder when training is over. Needs labels.
    pub final_table: bool,
    /// Measure in that table also the encoder before training and raw pixels, which takes three times as long.
    pub baselines: bool,
    /// When embeddings count as collapsed.
    pub collapse: CollapseConfig,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            checkpoint_every_epochs: 1,
            checkpoint_every_steps: 0,
            checkpoint_every_minutes: 10.0,
            keep_last_checkpoints: 3,
            keep_checkpoint_every_epochs: 0,
            log_every_steps: 1,
            geometry_every_steps: 10,
            on_nonfinite: OnNonfinite::Stop,
            most_skipped_steps: 10,
            knn_every_epochs: 0,
            knn_images: 2000,
            final_table: true,
            baselines: true,
            collapse: CollapseConfig::default(),
        }
    }
}

/// Images and the views made of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A manifest's name, "embedded", "synthetic", or a path; see [`eqco_data::open`].
    pub source: String,
    /// How the images at the path lie on disk; the format that is found there if absent (`auto`).
    #[serde(default, with = "format_or_auto")]
    pub format: Option<Format>,
    /// Use only this many training images, in balanced classes; 0 for all.
    #[serde(default)]
    pub limit: usize,
    /// How both views are made.
    pub recipe: RecipeConfig,
    /// Evaluation images are this many times as large as the views, from 0.5 to 4. Random crops enlarge what they show, so
    /// that somewhat larger images suit the encoder better than those of the views' size (Touvron et al. 2019,
    /// arXiv 1906.06423); 1, the usual choice, is the default.
    #[serde(default = "same_size")]
    pub evaluation_scale: f64,
    /// Where the views are made of the decoded images.
    #[serde(default)]
    pub augment_on: AugmentOn,
    /// Batches. The seed is the run's.
    #[serde(with = "run_seed")]
    pub loader: LoaderConfig,
}

/// Where views are made. They are the same to the byte; what differs is who is busy with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AugmentOn {
    /// In the loader's threads; finished views are uploaded.
    #[default]
    Cpu,
    /// On the GPU that trains; decoded images are uploaded, and the loader's threads only decode.
    Device,
}

fn same_size() -> f64 {
    1.0
}

impl DataConfig {
    /// Side in pixels of the square images that the encoder is evaluated on.
    pub fn evaluation_image_size(&self) -> usize {
        (self.recipe.image_size as f64 * self.evaluation_scale).round() as usize
    }
}

/// A checked configuration and how it came about.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The configuration.
    pub config: TrainConfig,
    /// The preset that it started from.
    pub preset: &'static str,
    /// What set each key that is not the preset's own.
    pub origins: BTreeMap<String, Origin>,
}

impl Resolved {
    /// Resolves preset, file and flags, and checks the result.
    ///
    /// # Errors
    /// Any [`ConfigError`]; the first one in the order preset, file, flags, fit.
    pub fn new(
        preset: &str,
        file: Option<&Path>,
        flags: Vec<Setting>,
    ) -> Result<Self, ConfigError> {
        let preset = Preset::named(preset)?;
        let file = file.map(read_file).transpose()?.unwrap_or_default();
        let settings = [layers::in_order(file), layers::in_order(flags)].concat();
        let resolved = layers::apply(&preset, settings)?;
        resolved.config.validate()?;
        Ok(resolved)
    }

    /// The configuration of a run that goes on, `stored`, with what `flags` change of it, and checks the result.
    ///
    /// # Errors
    /// As [`Resolved::new`].
    pub fn over_stored(
        stored: &TrainConfig,
        preset: &'static str,
        flags: Vec<Setting>,
    ) -> Result<Self, ConfigError> {
        let resolved = layers::apply_to_stored(stored, preset, layers::in_order(flags))?;
        resolved.config.validate()?;
        Ok(resolved)
    }

    /// The configuration as TOML, with the origin of what is not the preset's own beside it.
    pub fn annotated_toml(&self) -> String {
        show::annotated(self)
    }
}

impl TrainConfig {
    /// The same configuration with every default filled in.
    pub(crate) fn completed(mut self) -> Self {
        self.data.recipe = self.data.recipe.resolved();
        self.data.loader.seed = self.seed;
        self
    }

    /// The configuration as TOML, for the run folder.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration has text keys and finite numbers")
    }
}
