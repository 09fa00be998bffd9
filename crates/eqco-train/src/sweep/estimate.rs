//! How long a sweep will take: some steps of each kind of run, timed on this machine.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use eqco_models::ProcessGroup;
use serde_json::Value;

use super::{Grid, Launcher, Point};
use crate::cli::PretrainArgs;
use crate::config::TrainConfig;
use crate::plan::Plan;
use crate::ranks::Ranks;
use crate::step::Trainer;

/// Steps that are timed, after one that is not: the first one allocates.
const TIMED_STEPS: u32 = 3;

/// Settings that a step takes as long with whatever they are.
const WITHOUT_EFFECT: [&str; 6] = ["seed", "loss", "optimizer", "schedule", "evaluation", "run"];

/// Estimated times.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Of each run that was asked for, in their order, without its share in the other runs' use of the machine.
    pub runs: Vec<Duration>,
    /// Of all of them side by side.
    pub total: Duration,
}

/// Times some steps of each kind among the runs of `indices` in `grid`. Writes nothing.
///
/// The result leaves out kNN and linear probe, which take seconds on small data sets, and what runs side by side take
/// from each other.
///
/// # Errors
/// When a run could not begin.
pub fn estimate(grid: &Grid, indices: &[usize], launcher: &Launcher) -> Result<Estimate> {
    let mut measured: HashMap<String, Cost> = HashMap::new();
    let mut runs = Vec::new();
    for &index in indices {
        let point = &grid.points[index];
        let kind = kind(&point.config);
        if !measured.contains_key(&kind) {
            let cost = measure(launcher.pretrain_arguments(point));
            measured.insert(kind.clone(), cost.with_context(|| point.name.clone())?);
        }
        runs.push(measured[&kind].of(point));
    }
    let total = runs.iter().sum::<Duration>() / grid.jobs.min(runs.len()).max(1) as u32;
    Ok(Estimate { runs, total })
}

/// What a run of some kind costs.
struct Cost {
    step: Duration,
    steps_per_epoch: u64,
    evaluation: Duration,
}

impl Cost {
    fn of(&self, point: &Point) -> Duration {
        let steps = self.steps_per_epoch * point.config.schedule.epochs;
        self.step.mul_f64(steps as f64) + self.evaluation
    }
}

/// All settings that have an effect on time, as text.
fn kind(config: &TrainConfig) -> String {
    let mut tree = serde_json::to_value(config).unwrap_or_default();
    if let Value::Object(sections) = &mut tree {
        WITHOUT_EFFECT.iter().for_each(|section| {
            sections.remove(*section);
        });
    }
    if let Some(Value::Object(method)) = tree.get_mut("method") {
        method.remove("negative_count");
    }
    tree.to_string()
}

fn measure(arguments: PretrainArgs) -> Result<Cost> {
    let plan = Plan::new(&arguments, &Ranks::alone(), &ProcessGroup::alone())?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(plan.threads)
        .build()?;
    pool.install(|| {
        let steps_per_epoch = plan.position.steps_per_epoch;
        let mut trainer = Trainer::new(plan.config(), steps_per_epoch)?;
        let (mut started, mut steps) = (Instant::now(), 0);
        for batch in plan.loader.epoch(0, 0).take(1 + TIMED_STEPS as usize) {
            trainer.step(&batch?)?;
            if steps == 0 {
                started = Instant::now();
            }
            steps += 1;
        }
        // An epoch of one step has nothing but its first.
        let step = started.elapsed() / (steps - 1).max(1);
        let evaluation = match &plan.evaluation {
            Ok(images) => represent_one_batch(&trainer, plan.config()) * images.count() as u32,
            Err(_) => Duration::ZERO,
        };
        Ok(Cost {
            step,
            steps_per_epoch,
            evaluation,
        })
    })
}

/// Time an image takes through the encoder in evaluation.
fn represent_one_batch(trainer: &Trainer, config: &TrainConfig) -> Duration {
    const IMAGES: u32 = 32;
    let side = config.data.evaluation_image_size();
    let pixels = vec![128; IMAGES as usize * side * side * 3];
    let started = Instant::now();
    let _ = trainer.encoder().represent(&pixels, side);
    started.elapsed() / IMAGES
}
