//! One training step, and all the state that it reads and writes.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use eqco_core::BatchStatistics;
use eqco_data::loader::Batch;
use eqco_models::backend::Backend;
use eqco_models::checkpoint::{Checkpoint, CheckpointMetadata};
use eqco_models::encoder::CHECKPOINT_PREFIX;
use eqco_models::method::{Contrast, Method, Statistics, StepKey, Undo};
use eqco_models::optim::{Optimizer, Schedule};
use eqco_models::profile::Profiler;
use eqco_models::tape::Gradients;
use eqco_models::{Encoder, GradientNorms, ProcessGroup};

use crate::config::TrainConfig;
use crate::dry_run::Memory;
use crate::nonfinite::{Nonfinite, OnNonfinite};
use crate::views::both_views;

/// Stands before the names of the optimiser's tensors in a checkpoint.
const OPTIMIZER_PREFIX: &str = "optimizer.";

/// The state of a run. What is not here and not in the configuration does not influence training: all randomness is a
/// function of the seed, the step, the epoch and the image.
#[derive(Debug)]
pub struct Trainer {
    config: TrainConfig,
    group: Arc<ProcessGroup>,
    steps_per_epoch: u64,
    schedule: Schedule,
    encoder: Encoder,
    method: Method,
    optimizer: Optimizer,
    gradients: Gradients,
    /// Where steps that are not finite are skipped.
    undo: Option<Undo>,
    step: u64,
}

/// What one step did.
#[derive(Debug)]
pub struct StepReport {
    /// Steps taken so far, this one included.
    pub step: u64,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// The loss and its statistics over this rank's part of the batch, which may still be on their way from the device.
    pub statistics: Statistics,
    /// Embeddings of query and key views `[M,D]` of the same images of this rank, see [`Contrast`].
    pub embeddings: [Tensor; 2],
    /// The length of the gradients, on a GPU in some of the steps alone.
    pub gradient_norms: Option<GradientNorms>,
    /// Why the step has changed nothing but the count of steps, if so.
    pub skipped: Option<Nonfinite>,
}

/// A step that has been looked at, and not taken.
#[derive(Debug)]
pub struct Look {
    /// The loss and its statistics.
    pub statistics: BatchStatistics,
    /// The norm of the gradient of every parameter, by its index.
    pub gradient_norms: Vec<f64>,
    /// Embeddings of query and key views `[M,D]`.
    pub embeddings: [Tensor; 2],
}

impl Trainer {
    /// The state at the start of a run with `steps_per_epoch` batches an epoch.
    ///
    /// # Errors
    /// When a value of the configuration is out of range or memory cannot be allocated.
    pub fn new(config: &TrainConfig, steps_per_epoch: u64) -> Result<Self> {
        Self::with_profiler(config, steps_per_epoch, &Profiler::off())
    }

    /// The same, with the time of every operation booked by `profiler`.
    ///
    /// # Errors
    /// Those of [`Trainer::new`].
    pub fn with_profiler(
        config: &TrainConfig,
        steps_per_epoch: u64,
        profiler: &Profiler,
    ) -> Result<Self> {
        let device = config.device.open()?;
        let backend = Backend::open(config.backend, config.precision, &device, config.cuda)?;
        Self::on(&device, backend, config, steps_per_epoch, profiler)
    }

    /// The same on a device and with kernels that are ready, whatever the configuration says of them.
    ///
    /// # Errors
    /// Those of [`Trainer::new`].
    pub fn on(
        device: &Device,
        backend: Backend,
        config: &TrainConfig,
        steps_per_epoch: u64,
        profiler: &Profiler,
    ) -> Result<Self> {
        let encoder = untrained_encoder(config, device)?
            .with_backend(backend)
            .with_winograd(config.winograd)
            .with_precision(config.precision)
            .with_profiler(profiler);
        let method = Method::new(&config.method, config.loss, &encoder, config.seed)?;
        let undo = match config.run.on_nonfinite {
            OnNonfinite::Stop => None,
            OnNonfinite::Skip => Some(Undo::new(&method, &encoder)?),
        };
        Ok(Self {
            config: config.clone(),
            group: Arc::new(ProcessGroup::alone()),
            steps_per_epoch,
            schedule: Schedule::new(&config.schedule, config.data.loader.batch_size)?,
            method,
            undo,
            optimizer: Optimizer::new(&config.optimizer, encoder.parameters())?
                .with_backend(encoder.backend()),
            gradients: Gradients::new(encoder.parameters())?,
            encoder,
            step: 0,
        })
    }

    /// The same trainer as one of the processes of `group`, each of which is given its part of every batch: consecutive
    /// images in the order of ranks.
    ///
    /// # Errors
    /// When the ranks do not divide the batch, or the group cannot work on the trainer's device.
    pub fn in_group(mut self, group: ProcessGroup) -> Result<Self> {
        let (method, batch) = (&self.config.method, self.config.data.loader.batch_size);
        method.validate_ranks(batch, group.size())?;
        self.group = Arc::new(group.on_device(self.encoder.device())?);
        self.method = self.method.in_group(&self.group);
        Ok(self)
    }

    /// The processes that train together.
    pub fn group(&self) -> &Arc<ProcessGroup> {
        &self.group
    }

    /// The query encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// One step (EqCo, section 3.2; MoCo, algorithm 1; SimCLR, algorithm 1): encode both views, contrast, descend.
    ///
    /// Where steps that are not finite are skipped, such a step leaves everything but the count of steps as it was before.
    ///
    /// # Errors
    /// When the batch has another shape than the configuration says; [`Nonfinite`] when the loss or the gradient is known and
    /// not finite, and not to be skipped. The parameters are as before the step then. Whoever waits for a loss that is not
    /// known yet must judge it: [`Nonfinite::judge`].
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport> {
        if let Some(undo) = &mut self.undo {
            undo.remember(&self.method, batch.len())?;
        }
        let mut report = self.contrast(batch)?;
        let found = self.judge(&mut report)?;
        if let Some(undo) = &mut self.undo {
            if self.group.any(found.is_some())? {
                undo.undo(&mut self.method)?;
                let about = (self.step, report.learning_rate);
                let statistics = report.statistics.known_after_waiting()?;
                // All processes skip the step, or they would part.
                let elsewhere = || Nonfinite::in_another_process(about, statistics);
                report.skipped = Some(found.unwrap_or_else(elsewhere));
                self.step += 1;
                return Ok(report);
            }
        } else if let Some(found) = found {
            return Err(found.into());
        }
        let profiler = self.encoder.profiler();
        let _span = profiler.span(|| self.optimizer.work());
        self.optimizer.step(
            self.encoder.parameters(),
            &self.gradients,
            report.learning_rate,
        )?;
        self.step += 1;
        Ok(report)
    }

    /// The next step up to its gradients, for whoever looks for what is wrong with it. The state is of no use afterwards.
    ///
    /// # Errors
    /// When the batch has another shape than the configuration says.
    pub fn look(&mut self, batch: &Batch) -> Result<Look> {
        let report = self.contrast(batch)?;
        Ok(Look {
            statistics: report.statistics.wait()?,
            gradient_norms: GradientNorms::of(self.encoder.parameters(), &self.gradients)?
                .wait()?,
            embeddings: report.embeddings,
        })
    }

    /// Both views encoded and contrasted: gradients, and momentum encoder, running statistics and queue moved on.
    fn contrast(&mut self, batch: &Batch) -> Result<StepReport> {
        let image_size = self.config.data.recipe.image_size;
        let [query_views, key_views] = both_views(&self.encoder, batch, image_size)?;
        self.gradients.reset();
        let key = StepKey {
            seed: self.config.seed,
            step: self.step,
        };
        let Contrast {
            statistics,
            queries,
            keys,
        } = self.method.contrast(
            &self.encoder,
            &query_views,
            &key_views,
            key,
            &mut self.gradients,
        )?;
        Ok(StepReport {
            step: self.step + 1,
            learning_rate: self.schedule.learning_rate(self.step, self.steps_per_epoch),
            statistics,
            embeddings: [queries, keys],
            gradient_norms: self.gradient_norms()?,
            skipped: None,
        })
    }

    /// On a CPU those of every step, for one pass over the gradients. On a GPU they are a launch for every parameter: they are
    /// looked at where the embeddings are, and in every step only where a bad one has to be skipped.
    fn gradient_norms(&self) -> Result<Option<GradientNorms>> {
        let every = self.config.run.geometry_every_steps;
        let is_looked_at = every > 0 && self.step.is_multiple_of(every);
        if !self.encoder.device().is_cpu() && self.undo.is_none() && !is_looked_at {
            return Ok(None);
        }
        let parameters = self.encoder.parameters();
        let profiler = self.encoder.profiler();
        let _span = profiler.span(|| GradientNorms::work(parameters));
        Ok(Some(GradientNorms::of(parameters, &self.gradients)?))
    }

    /// Looks at what is known of a step before it can spoil the parameters. A GPU would stand idle meanwhile: there it is done a
    /// step later, unless the step may have to be skipped.
    fn judge(&self, report: &mut StepReport) -> Result<Option<Nonfinite>> {
        let waits = self.undo.is_some();
        if !waits && !report.statistics.are_known() {
            return Ok(None);
        }
        let statistics = report.statistics.known_after_waiting()?;
        let norms = (report.gradient_norms.as_ref())
            .filter(|norms| waits || norms.are_known())
            .map(|norms| norms.clone().wait())
            .transpose()?;
        let about = (report.step - 1, report.learning_rate);
        let parameters = self.encoder.parameters();
        Ok(Nonfinite::judge(
            about,
            &statistics,
            norms.as_deref(),
            parameters,
        ))
    }

    /// Bytes by part.
    pub fn memory(&self) -> Memory {
        let encoders = std::iter::once(&self.encoder).chain(self.method.momentum_encoder());
        Memory {
            parameters: encoders.map(|encoder| encoder.parameters().bytes()).sum(),
            gradients: self.encoder.parameters().scalar_count() * size_of::<f32>(),
            optimizer: self.optimizer.bytes(),
            activations: self.encoder.recycled_bytes(),
            queue: self.method.queue_bytes(),
            undo: self.undo.as_ref().map_or(0, Undo::bytes),
            peak: None,
        }
    }

    /// A copy of all of the state in host memory, for a checkpoint: encoder, momentum encoder and queue, optimiser, and the
    /// number of steps. Where the loop around them stands is for whoever runs it to add.
    ///
    /// # Errors
    /// When copying fails.
    pub fn to_checkpoint(&self, epoch: u64, commit: &str) -> Result<Checkpoint> {
        let mut tensors = self.encoder.to_checkpoint()?;
        tensors.extend(self.method.state()?);
        let optimizer = self.optimizer.state()?;
        tensors.extend(
            optimizer
                .into_iter()
                .map(|(name, tensor)| (format!("{OPTIMIZER_PREFIX}{name}"), tensor)),
        );
        // A queue on a device, say: another thread is to write what later steps no longer change.
        for (_, tensor) in &mut tensors {
            *tensor = tensor.to_device(&Device::Cpu)?;
        }
        let metadata = CheckpointMetadata {
            encoder: self.config.encoder,
            projection_head: self.config.projection_head,
            normalization: self.config.normalization,
            image_size: self.config.data.evaluation_image_size(),
            training: serde_json::to_value(&self.config).context("the configuration as JSON")?,
            step: self.step,
            epoch,
            commit: commit.to_string(),
            progress: serde_json::Value::Null,
        };
        Ok(Checkpoint { metadata, tensors })
    }

    /// Takes up all of the state that [`Trainer::to_checkpoint`] gave of a trainer with the same configuration. What may differ
    /// between the two is where and how steps are computed.
    ///
    /// # Errors
    /// When a tensor is missing or does not fit. The trainer is of no use then.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let tensors: HashMap<String, Tensor> = checkpoint.tensors.iter().cloned().collect();
        self.encoder.load_named(CHECKPOINT_PREFIX, &tensors)?;
        self.method.load_state(&tensors)?;
        self.optimizer.load_state(OPTIMIZER_PREFIX, &tensors)?;
        self.step = checkpoint.metadata.step;
        Ok(())
    }
}

/// The encoder of a configuration at initialisation, computing in f32.
///
/// # Errors
/// When a value of the configuration is out of range or memory cannot be allocated.
pub fn untrained_encoder(config: &TrainConfig, device: &Device) -> Result<Encoder> {
    Ok(Encoder::new(
        &config.encoder,
        &config.projection_head,
        config.normalization,
        config.seed,
        device,
    )?)
}
