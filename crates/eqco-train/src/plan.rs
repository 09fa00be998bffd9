//! Everything that is settled before the first step: configuration, data, length, folder.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use anyhow::{Context, Result};
use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::Recipe;
use eqco_data::{Dataset, Split, limited, open_as};
use eqco_eval::EvalImages;
use eqco_models::backend::Backend;
use eqco_models::profile::Profiler;
use eqco_models::{Encoder, Precision, ProcessGroup};

use crate::cli::PretrainArgs;
use crate::config::{AugmentOn, Resolved, TrainConfig, explain_margin};
use crate::epoch::Position;
use crate::loop_state::ImagesSeen;
use crate::metrics::COMMIT;
use crate::online_knn::OnlineKnn;
use crate::own_keys;
use crate::ranks::Ranks;
use crate::resume::{Beginning, Change, Opened};
use crate::run_folder::RunFolder;
use crate::run_path::default_path;
use crate::step::Trainer;

/// A run that could begin.
pub struct Plan {
    /// The configuration.
    pub resolved: Resolved,
    /// Two views of every training image.
    pub loader: Loader,
    /// What tells these images from others.
    pub images: ImagesSeen,
    /// Images of the final table and of kNN while the run trains, or why there will be none.
    pub evaluation: Result<EvalImages, String>,
    /// kNN while the run trains, if it is wanted and can be.
    pub online_knn: Option<OnlineKnn>,
    /// The first step, and how many there are.
    pub position: Position,
    /// Threads of the kernels.
    pub threads: usize,
    /// Processes that share every batch.
    pub ranks: usize,
    /// The run's folder, which does not exist yet or is empty, or is that of the run to go on with.
    pub folder: PathBuf,
    /// What is there of an earlier part of the run.
    pub opened: Opened,
    /// Settings that are others than in that part.
    pub changes: Vec<Change>,
}

impl Plan {
    /// Resolves the configuration, opens the data and chooses the folder, for one of `ranks` processes, and reads the
    /// checkpoint of a run to go on with. Writes nothing but the lock of that run.
    ///
    /// # Errors
    /// Those of the configuration, also of one that the ranks cannot share out, of the data set, of a folder that holds a run
    /// already, and of a run that cannot go on; and a final table that was asked for by file or flag but cannot be made.
    pub fn new(arguments: &PretrainArgs, ranks: &Ranks, group: &ProcessGroup) -> Result<Self> {
        let (opened, folder, resolved, changes) = Opened::of(arguments, group)?;
        let config = &resolved.config;
        config.validate_ranks(ranks.size())?;
        let folder = match folder {
            Some(folder) => folder,
            None => {
                let here = env::current_dir().context("the current folder cannot be found")?;
                default_path(&here, resolved.preset, config.seed, SystemTime::now())
            }
        };
        if ranks.is_first() && matches!(opened.beginning, Beginning::New) {
            RunFolder::check_free(&folder)?;
        }

        let threads = thread_count(config.threads, ranks.local_size);
        let train = training_images(config)?;
        let loader = two_view_loader(config, Arc::clone(&train), threads)?;
        let loader = loader.for_part(ranks.rank(), ranks.size())?;
        let is_asked = |key: &str| resolved.origins.contains_key(key);
        let wants_table = config.run.final_table && is_asked("run.final_table");
        let wants_knn = config.run.knn_every_epochs > 0 && is_asked("run.knn_every_epochs");
        let evaluation = match ranks
            .is_first()
            .then(|| evaluation_images(config, train, threads))
        {
            None => Err("rank 0 evaluates".to_owned()),
            Some(_) if !config.run.final_table && config.run.knn_every_epochs == 0 => {
                Err("run.final_table is false".to_owned())
            }
            Some(Ok(images)) => Ok(images),
            Some(Err(error)) if wants_table || wants_knn => return Err(error),
            Some(Err(error)) => Err(format!("{error:#}")),
        };
        let online_knn = match &evaluation {
            Ok(images) => OnlineKnn::new(config, images)?,
            Err(_) => None,
        };
        let mut position = Position {
            next_step: 0,
            steps_per_epoch: loader.batches_per_epoch(),
            epochs: config.schedule.epochs,
        };
        let images = ImagesSeen::of(&**loader.dataset(), position.steps_per_epoch);
        if let Beginning::Resumed(resumed) = &opened.beginning {
            resumed.check_images(images)?;
            resumed.check_length(position.epochs, position.total_steps())?;
            position.next_step = resumed.checkpoint.metadata.step;
        }
        Ok(Self {
            resolved,
            loader,
            images,
            evaluation,
            online_knn,
            position,
            threads,
            ranks: ranks.size(),
            folder,
            opened,
            changes,
        })
    }

    /// The trainer at the first step of this process, which takes up what is there of an earlier part of the run.
    ///
    /// # Errors
    /// Those of [`Trainer::new`], and of a checkpoint with other tensors than the configuration asks for.
    pub fn trainer(&self, ranks: &Ranks, profiler: &Profiler) -> Result<Trainer> {
        let config = TrainConfig {
            device: ranks.device(self.config().device),
            ..self.config().clone()
        };
        let mut trainer = Trainer::with_profiler(&config, self.position.steps_per_epoch, profiler)?;
        if let Beginning::Resumed(resumed) = &self.opened.beginning {
            resumed.check_tensors(&trainer.to_checkpoint(0, COMMIT)?)?;
            trainer.restore(&resumed.checkpoint)?;
            let skipped: Vec<u32> = resumed.state.skipped_images.iter().copied().collect();
            self.loader.resume_skipped(&skipped);
        }
        Ok(trainer)
    }

    /// The configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.resolved.config
    }

    /// What is about to happen to `encoder`, for people.
    pub fn describe(&self, encoder: &Encoder) -> String {
        let config = self.config();
        let dataset = self.loader.dataset();
        let (
            batch,
            Position {
                steps_per_epoch,
                epochs,
                ..
            },
        ) = (config.data.loader.batch_size, self.position);
        let negatives = config.method.negatives_per_query(batch);
        let table = match &self.evaluation {
            Ok(_) if !config.run.final_table => "none: run.final_table is false".to_owned(),
            Ok(images) => format!(
                "kNN and linear probe on {} images of {side} x {side} pixels",
                images.count(),
                side = images.image_size()
            ),
            Err(reason) => format!("none: {reason}"),
        };
        let made = match config.data.augment_on {
            AugmentOn::Cpu => "",
            AugmentOn::Device => ", views made on the device",
        };
        let lines = [
            (
                "preset",
                format!("{}, seed {}", self.resolved.preset, config.seed),
            ),
            ("data", format!("{}{made}", dataset.name())),
            (
                "encoder",
                format!(
                    "{}, width {}, {:.2} M parameters with its head",
                    named(&config.encoder.architecture),
                    config.encoder.width,
                    encoder.parameters().scalar_count() as f64 / 1e6,
                ),
            ),
            (
                "method",
                format!(
                    "{}, {negatives} negatives a query, alpha {}, temperature {}",
                    named(&config.method.name),
                    config.loss.alpha,
                    config.loss.temperature,
                ),
            ),
            ("margin", explain_margin(config)),
            (
                "length",
                format!(
                    "{} images, {epochs} epochs of {steps_per_epoch} steps of {batch}: {} steps",
                    dataset.len(),
                    self.position.total_steps(),
                ),
            ),
            (
                "kernels",
                format!(
                    "{} on the {}, {}, {} threads",
                    kernels(config, encoder.backend()),
                    named(&config.device),
                    named(&config.precision),
                    self.threads,
                ),
            ),
            ("ranks", self.ranks()),
            ("table", table),
            ("monitor", self.monitor()),
            ("folder", self.folder.display().to_string()),
        ];
        let warning = own_keys::warning(config, self.own_keys_expected(), dataset.len());
        let warning = warning.map(|text| ("WARNING", text));
        let lines = lines.into_iter().chain(warning);
        let lines: Vec<_> = lines
            .map(|(name, text)| format!("{name:<8} {text}"))
            .collect();
        lines.join("\n")
    }

    /// Older keys of its own image that a query meets on average.
    pub fn own_keys_expected(&self) -> f64 {
        let images = self.loader.dataset().len();
        own_keys::of_run(self.config(), self.position.steps_per_epoch, images)
    }

    /// How the batch is shared out.
    fn ranks(&self) -> String {
        let batch = self.config().data.loader.batch_size;
        match self.ranks {
            1 => "one process".to_owned(),
            ranks => format!(
                "{ranks} processes, {} images of a batch each, with batch-norm statistics of their own",
                batch / ranks
            ),
        }
    }

    /// What is measured while the run trains.
    fn monitor(&self) -> String {
        let run = &self.config().run;
        let knn = match &self.online_knn {
            Some(_) => format!(
                "kNN every {} epochs on {} images of each part",
                run.knn_every_epochs, run.knn_images
            ),
            None if run.knn_every_epochs == 0 => "no kNN (run.knn_every_epochs)".to_owned(),
            None => "no kNN: the images cannot be evaluated".to_owned(),
        };
        format!("metrics.jsonl and tensorboard/; {knn}")
    }
}

/// The family with its version and instruction set, and a warning where the precision does not pay.
fn kernels(config: &TrainConfig, backend: &Backend) -> String {
    let family = match backend {
        Backend::Onednn(library) if config.precision == Precision::Bf16 => {
            format!(
                "{} (the portable kernels are quicker in bf16)",
                library.describe()
            )
        }
        other => other.to_string(),
    };
    if config.winograd {
        family
    } else {
        format!("{family}, without Winograd")
    }
}

/// The name of a choice, as it stands in the configuration.
pub fn named(choice: &impl serde::Serialize) -> String {
    match serde_json::to_value(choice) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

/// Threads of one of `processes` on this machine.
fn thread_count(configured: usize, processes: usize) -> usize {
    match configured {
        0 => {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            (cores / processes).max(1)
        }
        threads => threads,
    }
}

pub(crate) fn training_images(config: &TrainConfig) -> Result<Arc<dyn Dataset>> {
    let train = open_as(&config.data.source, Split::Train, config.data.format)?;
    Ok(if config.data.limit == 0 {
        train
    } else {
        limited(train, config.data.limit)
    })
}

pub(crate) fn two_view_loader(
    config: &TrainConfig,
    train: Arc<dyn Dataset>,
    threads: usize,
) -> Result<Loader> {
    let recipe = Recipe::new(config.data.recipe.clone())?;
    let workers = loader_workers(config.data.loader.workers, threads);
    let settings = LoaderConfig {
        workers,
        ..config.data.loader.clone()
    };
    let views = vec![recipe.clone(), recipe];
    Ok(match config.data.augment_on {
        AugmentOn::Cpu => Loader::new(train, views, settings)?,
        AugmentOn::Device => Loader::of_decoded(train, &views, settings)?,
    })
}

/// Threads of the loader: a quarter of the kernels' unless the configuration says otherwise. On a CPU, a step takes many
/// times as long as making its batch, and every thread more than needed takes time from the kernels.
fn loader_workers(configured: usize, threads: usize) -> usize {
    if configured == 0 {
        threads.div_ceil(4)
    } else {
        configured
    }
}

fn evaluation_images(
    config: &TrainConfig,
    train: Arc<dyn Dataset>,
    threads: usize,
) -> Result<EvalImages> {
    let test = open_as(&config.data.source, Split::Test, config.data.format)?;
    let workers = loader_workers(config.data.loader.workers, threads);
    Ok(EvalImages::new(
        train,
        test,
        config.data.evaluation_image_size(),
        workers,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_gets_a_quarter_of_the_threads_but_at_least_one() {
        let workers = [1, 2, 4, 5, 16].map(|threads| loader_workers(0, threads));
        assert_eq!(workers, [1, 1, 1, 2, 4]);
        assert_eq!(loader_workers(3, 16), 3);
        assert_eq!(thread_count(5, 2), 5);
        assert!(thread_count(0, 1) >= thread_count(0, 2));
        assert_eq!(thread_count(0, 10_000), 1);
    }

    #[test]
    fn choices_are_named_as_in_the_configuration() {
        assert_eq!(named(&eqco_models::method::MethodName::MocoV2), "moco_v2");
        assert_eq!(named(&eqco_models::Architecture::Resnet50), "resnet50");
    }
}
