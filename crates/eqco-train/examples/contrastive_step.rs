//! One whole contrastive step timed on its own: our side of `cargo xtask bench train --work simo --work negatives`.
//!
//! It is the step of the preset `simo-cifar-r18`, through the loader and the trainer that `eqco-train` uses: two views
//! of every image, key forward pass, query forward and backward pass, loss, optimiser, momentum encoder. Images are in
//! memory, so that no decoder counts. `--set KEY=VALUE` changes any key of the configuration.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use eqco_data::loader::Loader;
use eqco_data::recipe::Recipe;
use eqco_data::{DataError, Dataset, Image, Split, open};
use eqco_train::config::{Resolved, TrainConfig, read_assignment};
use eqco_train::plan::named;
use eqco_train::step::Trainer;
use serde_json::json;

const WARM_UP_STEPS: usize = 2;

/// Time one whole contrastive step.
#[derive(Parser)]
struct Arguments {
    /// Family of kernels
    #[arg(long, default_value = "portable")]
    backend: String,
    /// Arithmetic of activations
    #[arg(long, default_value = "f32")]
    precision: String,
    /// Images a step
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Threads of the kernels; the loader has one of its own
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// Steps to time
    #[arg(long, default_value = "5")]
    steps: NonZeroUsize,
    /// Any other key of `eqco-train show-config`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads.get())
        .build_global()?;
    let config = configuration(&arguments)?;
    let memory_before = peak_memory_bytes();
    let mut seconds = time_steps(&config, arguments.steps.get())?;
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    if arguments.json {
        let measurement = json!({
            "seconds_per_step": median,
            "steps": seconds.len(),
            "peak_memory_bytes": peak_memory_bytes(),
            "memory_before_bytes": memory_before,
            "threads": arguments.threads,
            "family": named(&config.backend),
            "precision": named(&config.precision),
        });
        println!("{measurement}");
    } else {
        println!(
            "batch {} threads {}: {:.1} images/s, peak memory {:.2} GB",
            arguments.batch,
            arguments.threads,
            arguments.batch as f64 / median,
            peak_memory_bytes() as f64 / 1e9
        );
    }
    Ok(())
}

fn configuration(arguments: &Arguments) -> Result<TrainConfig> {
    let settings = [
        format!("backend={}", arguments.backend),
        format!("precision={}", arguments.precision),
        format!("threads={}", arguments.threads),
        format!("data.loader.batch_size={}", arguments.batch),
        // As many as a run takes for up to four threads.
        "data.loader.workers=1".to_owned(),
        "data.source=synthetic".to_owned(),
    ];
    let settings = settings.iter().chain(&arguments.set);
    let settings = settings
        .map(|text| read_assignment(text))
        .collect::<Result<_, _>>()?;
    Ok(Resolved::new("simo-cifar-r18", None, settings)?.config)
}

/// Seconds of each step after the warm-up, waiting for its batch included.
fn time_steps(config: &TrainConfig, steps: usize) -> Result<Vec<f64>> {
    let recipe = Recipe::new(config.data.recipe.clone())?;
    let dataset = Arc::new(InMemory::new(&*open(&config.data.source, Split::Train)?)?);
    let loader = Loader::new(
        dataset,
        vec![recipe.clone(), recipe],
        config.data.loader.clone(),
    )?;
    let mut trainer = Trainer::new(config, loader.batches_per_epoch())?;
    let mut batches = (0..).flat_map(|epoch| loader.epoch(epoch, 0));
    let mut seconds = Vec::new();
    for _ in 0..WARM_UP_STEPS + steps {
        let start = Instant::now();
        let batch = batches.next().context("epochs never end")??;
        trainer.step(&batch)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(seconds.split_off(WARM_UP_STEPS))
}

/// The images of another data set, computed once.
struct InMemory {
    images: Vec<Image>,
}

impl InMemory {
    fn new(source: &dyn Dataset) -> Result<Self, DataError> {
        let images = (0..source.len()).map(|index| source.image(index));
        Ok(Self {
            images: images.collect::<Result<_, _>>()?,
        })
    }
}

impl Dataset for InMemory {
    fn name(&self) -> &str {
        "images in memory"
    }
    fn len(&self) -> usize {
        self.images.len()
    }
    fn class_names(&self) -> &[String] {
        &[]
    }
    fn label(&self, _index: usize) -> Option<u32> {
        None
    }
    fn image(&self, index: usize) -> Result<Image, DataError> {
        Ok(self.images[index].clone())
    }
    fn describe(&self, index: usize) -> String {
        format!("image {index} in memory")
    }
}

/// Peak resident memory of this process; 0 where the system does not tell.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    kilobytes.unwrap_or(0) * 1024
}
