//! What no single field can tell: settings that do not fit each other, this machine or this build.

use std::fmt::Display;

use eqco_data::recipe::{Recipe, RecipeName};
use eqco_models::backend::Backend;
use eqco_models::group::GroupError;
use eqco_models::method::MethodName;
use eqco_models::{DeviceName, Stem};

use super::error::ConfigError;
use super::{AugmentOn, TrainConfig};
use crate::machine::{Machine, bytes_in_words};

/// Smallest view for the ImageNet stem: its five halvings leave one pixel.
const LEAST_IMAGENET_STEM_SIZE: usize = 32;
/// More than any machine has cores; so many more would stall it instead of failing.
const MOST_THREADS: usize = 1024;
/// A year, which every clock can count.
const MOST_MINUTES: f64 = 525_600.0;
/// Smallest view for the CIFAR stem, which halves three times.
const LEAST_CIFAR_STEM_SIZE: usize = 8;

impl TrainConfig {
    /// Checks everything that can be checked without looking at the data.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] with the key to change and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_build()?;
        self.check_intervals()?;
        self.check_views()?;
        self.check_augmentation()?;
        self.check_batches()?;
        self.check_queue()?;
        self.check_parts()
    }

    /// Checks that `ranks` processes can share the run out among them, with this build.
    ///
    /// # Errors
    /// As [`TrainConfig::validate`].
    pub fn validate_ranks(&self, ranks: usize) -> Result<(), ConfigError> {
        if ranks == 1 {
            return Ok(());
        }
        if self.device != DeviceName::Cpu && !cfg!(feature = "nccl") {
            let error = GroupError::NotBuilt;
            return conflict("device", error.to_string(), error.hint());
        }
        let batch = self.data.loader.batch_size;
        let shared = self.method.validate_ranks(batch, ranks);
        refused("data.loader", shared, "see --batch-size and --micro-batch")
    }

    fn check_build(&self) -> Result<(), ConfigError> {
        let device = match self.device.open() {
            Ok(device) => device,
            Err(error) => {
                let hint = "leave --device away to train on the CPU";
                return conflict("device", error.to_string(), hint);
            }
        };
        if let Err(error) = Backend::open(self.backend, self.precision, &device, self.cuda) {
            let hint = "leave --backend away to use the kernels that suit the device";
            return conflict("backend", error.to_string(), hint);
        }
        if self.threads > MOST_THREADS {
            let problem = format!("expected at most {MOST_THREADS}, got {}", self.threads);
            return conflict("threads", problem, "0 takes one a core");
        }
        if i64::try_from(self.seed).is_err() {
            let problem = format!("expected a number below 2^63, got {}", self.seed);
            return conflict(
                "seed",
                problem,
                "any small number is as random as a large one",
            );
        }
        Ok(())
    }

    fn check_intervals(&self) -> Result<(), ConfigError> {
        let run = &self.run;
        let counts = [
            ("run.checkpoint_every_epochs", run.checkpoint_every_epochs),
            ("run.log_every_steps", run.log_every_steps),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return conflict(key, "expected at least 1, got 0", "give a number from 1 on");
        }
        let minutes = run.checkpoint_every_minutes;
        if !(0.0..=MOST_MINUTES).contains(&minutes) {
            let problem = format!("expected 0 to {MOST_MINUTES} minutes, got {minutes}");
            return conflict(
                "run.checkpoint_every_minutes",
                problem,
                "0 writes none by the clock",
            );
        }
        if let Some((key, value, range)) = run.collapse.out_of_range() {
            let problem = format!("expected {range}, got {value}");
            return conflict(key, problem, "leave it away for the default");
        }
        Ok(())
    }

    fn check_views(&self) -> Result<(), ConfigError> {
        let scale = self.data.evaluation_scale;
        if !(0.5..=4.0).contains(&scale) {
            let problem = format!("expected a number from 0.5 to 4, got {scale}");
            let hint = "1 evaluates on images of the views' size";
            return conflict("data.evaluation_scale", problem, hint);
        }
        let size = (self.data.recipe.image_size).min(self.data.evaluation_image_size());
        let least = match self.encoder.stem {
            Stem::Imagenet => LEAST_IMAGENET_STEM_SIZE,
            Stem::Cifar => LEAST_CIFAR_STEM_SIZE,
        };
        if size < least {
            let problem = format!("the stem needs at least {least} pixels, got {size}");
            return conflict(
                "data.recipe.image_size",
                problem,
                "use --stem cifar for small images",
            );
        }
        if self.data.recipe.name == RecipeName::Eval {
            let problem = "`eval` makes both views the same, so that there is nothing to learn";
            return conflict(
                "data.recipe.name",
                problem,
                "use moco_v2, simclr, cifar or fashion",
            );
        }
        Ok(())
    }

    fn check_augmentation(&self) -> Result<(), ConfigError> {
        if self.data.augment_on == AugmentOn::Cpu || self.device != DeviceName::Cpu {
            return Ok(());
        }
        let problem =
            "`device` has the GPU that trains make the views, and this run trains on the cpu";
        let hint = "leave --augment-on away to make the views in the loader, or train with --device cuda:0";
        conflict("data.augment_on", problem, hint)
    }

    fn check_batches(&self) -> Result<(), ConfigError> {
        if self.data.loader.drop_last {
            return Ok(());
        }
        let problem = "a last batch that is smaller may have too few negatives";
        conflict(
            "data.loader.drop_last",
            problem,
            "leave it true: every epoch leaves out other images",
        )
    }

    /// A queue that cannot be held is refused before anything is allocated.
    fn check_queue(&self) -> Result<(), ConfigError> {
        let (keys, dim) = (
            self.method.negative_count,
            self.projection_head.embedding_dim,
        );
        let row = (dim.max(1) as u64).saturating_mul(size_of::<f32>() as u64);
        let Some(memory) = Machine::detect().memory_bytes else {
            return Ok(());
        };
        // Beside the queue there are its random beginning and a checkpoint's copy.
        let most = memory / 3 / row;
        if self.method.name != MethodName::MocoV2 || keys as u64 <= most {
            return Ok(());
        }
        let problem = format!(
            "a queue of {keys} keys of {dim} numbers does not fit into the memory of this machine, {}; the longest that does has \
             {most}",
            bytes_in_words(memory)
        );
        conflict(
            "method.negative_count",
            problem,
            "--alpha makes up for fewer negatives",
        )
    }

    /// Asks the parts themselves.
    fn check_parts(&self) -> Result<(), ConfigError> {
        const SHOW: &str = "`eqco-train show-config` prints every key with its value";
        let batch = self.data.loader.batch_size;
        refused(
            "method",
            self.method.validate(batch),
            "see --method, --negatives and --batch-size",
        )?;
        refused("data.recipe", Recipe::new(self.data.recipe.clone()), SHOW)?;
        refused(
            "loss",
            self.loss.validate(),
            "see --temperature and --alpha",
        )?;
        refused("optimizer", self.optimizer.validate(), SHOW)?;
        let shorter =
            "see --epochs and --lr; --set schedule.warmup_epochs=0 leaves out the warm-up";
        refused("schedule", self.schedule.validate(), shorter)
    }
}

/// The error of a section's own check. Its text names the key within the section.
fn refused<T, E: Display>(
    section: &'static str,
    checked: Result<T, E>,
    hint: &str,
) -> Result<(), ConfigError> {
    let Err(error) = checked else { return Ok(()) };
    let problem = error.to_string();
    let problem = problem
        .strip_prefix(&format!("{section}."))
        .unwrap_or(&problem)
        .to_owned();
    Err(ConfigError::Section {
        section,
        problem,
        hint: hint.to_owned(),
    })
}

fn conflict(
    key: &'static str,
    problem: impl Into<String>,
    hint: impl Into<String>,
) -> Result<(), ConfigError> {
    Err(ConfigError::Conflict {
        key,
        problem: problem.into(),
        hint: hint.into(),
    })
}
