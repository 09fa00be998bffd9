//! One pass over the data: batches in, steps done, time accounted for.

use std::time::{Duration, Instant};

use anyhow::Result;
use candle_core::Tensor;
use eqco_core::BatchStatistics;
use eqco_data::loader::Batch;
use eqco_data::{Cursor, DataError};
use eqco_eval::Geometry;
use eqco_models::profile::{Phase, Profiler, Work};

use crate::config::RunConfig;
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::metrics::{Record, StepRecord, Timing};
use crate::progress::{Progress, Standing};
use crate::step::StepReport;

/// Where a run stands. Everything that a resumed run needs to go on with the loop is `next_step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The next step to do, which is the number of steps done, over the whole run.
    pub next_step: u64,
    /// Steps of an epoch, at least 1.
    pub steps_per_epoch: u64,
    /// Epochs of the run.
    pub epochs: u64,
}

impl Position {
    /// The batch of the next step; its epoch is `epochs` when the run is over.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.next_step / self.steps_per_epoch,
            next_batch: self.next_step % self.steps_per_epoch,
        }
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.epochs * self.steps_per_epoch
    }

    /// Whether every step has been done.
    pub fn is_finished(&self) -> bool {
        self.next_step >= self.total_steps()
    }
}

/// What an epoch works with beside its batches.
pub struct EpochContext<'a> {
    /// Looked at after every step.
    pub interrupt: &'a Interrupt,
    /// The display.
    pub progress: &'a mut Progress,
    /// Where steps are recorded.
    pub journal: &'a mut Journal,
    /// Where waiting for batches is booked.
    pub profiler: &'a Profiler,
    /// What a run writes, and how often.
    pub run: &'a RunConfig,
    /// The loss while all similarities are equal.
    pub chance_loss: f64,
    /// kNN top-1 in percent, once it has been measured.
    pub knn_top1: Option<f64>,
    /// When the run, or this part of a resumed run, began, and at which step.
    pub started: (Instant, u64),
}

/// Means and times of the steps of one epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochTotals {
    steps: u64,
    images: usize,
    loss: f64,
    contrast_top1: f64,
    gradient_scale: f64,
    guaranteed_bound: f64,
    elapsed: Duration,
    data_wait: Duration,
}

impl EpochTotals {
    fn add(
        &mut self,
        images: usize,
        statistics: &BatchStatistics,
        elapsed: Duration,
        data_wait: Duration,
    ) {
        self.steps += 1;
        self.images += images;
        self.loss += statistics.loss;
        self.contrast_top1 += statistics.contrast_top1;
        self.gradient_scale += statistics.gradient_scale;
        self.guaranteed_bound += statistics.guaranteed_bound;
        self.elapsed += elapsed;
        self.data_wait += data_wait;
    }

    /// Mean loss in nats; 0 before the first step.
    pub fn loss(&self) -> f64 {
        self.loss / self.steps.max(1) as f64
    }

    /// Mean contrast top-1, 0 to 1; 0 before the first step.
    pub fn contrast_top1(&self) -> f64 {
        self.contrast_top1 / self.steps.max(1) as f64
    }

    /// Mean gradient scale, 0 to 1; 0 before the first step.
    pub fn gradient_scale(&self) -> f64 {
        self.gradient_scale / self.steps.max(1) as f64
    }

    /// Mean guaranteed bound on mutual information in nats; 0 before the first step.
    pub fn guaranteed_bound(&self) -> f64 {
        self.guaranteed_bound / self.steps.max(1) as f64
    }

    /// Steps done, and their time with all waiting.
    pub fn steps_and_time(&self) -> (u64, Duration) {
        (self.steps, self.elapsed)
    }

    /// Where the time went.
    pub fn timing(&self) -> Timing {
        Timing::new(
            self.images,
            self.elapsed.as_secs_f64(),
            self.data_wait.as_secs_f64(),
        )
    }

    /// The figures for the display.
    pub fn standing(&self, position: &Position, context: &EpochContext<'_>) -> Standing {
        let started = context.started;
        let timing = self.timing();
        let last_step = position.next_step.saturating_sub(1);
        let done = position.next_step.saturating_sub(started.1).max(1);
        let left = position.total_steps().saturating_sub(position.next_step);
        Standing {
            epoch: last_step / position.steps_per_epoch + 1,
            epochs: position.epochs,
            step: last_step % position.steps_per_epoch + 1,
            steps: position.steps_per_epoch,
            loss: self.loss(),
            chance_loss: context.chance_loss,
            contrast_top1: self.contrast_top1(),
            gradient_scale: self.gradient_scale(),
            guaranteed_bound: self.guaranteed_bound(),
            knn_top1: context.knn_top1,
            images_per_second: timing.images_per_second,
            data_wait_share: timing.data_wait_share(),
            elapsed: self.elapsed,
            remaining: started.0.elapsed().mul_f64(left as f64 / done as f64),
        }
    }
}

/// Does the steps of `batches`, which go from `position` to the end of its epoch, and moves `position` along. Ends early,
/// after a whole step, when the interrupt is requested.
///
/// # Errors
/// Those of the loader, of `step` and of the metrics file. `position` is that of the step that failed then.
pub fn train_epoch(
    mut batches: impl Iterator<Item = Result<Batch, DataError>>,
    position: &mut Position,
    context: &mut EpochContext<'_>,
    mut step: impl FnMut(&Batch) -> Result<StepReport>,
) -> Result<EpochTotals> {
    let mut totals = EpochTotals::default();
    while !context.interrupt.is_requested() {
        let span = context
            .profiler
            .span(|| Work::new("waiting for data", Phase::Other));
        let asked = Instant::now();
        let Some(batch) = batches.next().transpose()? else {
            break;
        };
        drop(span);
        let data_wait = asked.elapsed();
        let report = step(&batch)?;
        let elapsed = asked.elapsed();

        totals.add(batch.len(), &report.statistics, elapsed, data_wait);
        if position
            .next_step
            .is_multiple_of(context.run.log_every_steps)
        {
            context.journal.write(&Record::Step(StepRecord {
                step: position.next_step,
                epoch: position.cursor().epoch,
                learning_rate: report.learning_rate,
                statistics: report.statistics,
                chance_loss: context.chance_loss,
                geometry: geometry(&report, position.next_step, context.run)?,
                timing: Timing::new(batch.len(), elapsed.as_secs_f64(), data_wait.as_secs_f64()),
            }))?;
        }
        position.next_step += 1;
        let standing = totals.standing(position, context);
        context.progress.update(&standing);
    }
    Ok(totals)
}

/// How the embeddings of a step lie, if it is one of those that are looked at.
fn geometry(report: &StepReport, step: u64, run: &RunConfig) -> Result<Option<Geometry>> {
    if run.geometry_every_steps == 0 || !step.is_multiple_of(run.geometry_every_steps) {
        return Ok(None);
    }
    let [queries, keys] = &report.embeddings;
    let (count, dim) = queries.dims2()?;
    let rows = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    Ok((count >= 2)
        .then(|| Ok::<_, candle_core::Error>(Geometry::of(&rows(queries)?, &rows(keys)?, dim)))
        .transpose()?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use candle_core::Device;
    use eqco_data::loader::{Loader, LoaderConfig};
    use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
    use eqco_data::{Dataset, Image};
    use serde_json::Value;

    use super::*;
    use crate::run_folder::RunFolder;

    /// Ten images of one pixel.
    struct Dots;

    impl Dataset for Dots {
        fn name(&self) -> &str {
            "dots"
        }
        fn len(&self) -> usize {
            10
        }
        fn class_names(&self) -> &[String] {
            &[]
        }
        fn label(&self, _index: usize) -> Option<u32> {
            None
        }
        fn image(&self, index: usize) -> Result<Image, DataError> {
            Image::new(1, 1, vec![index as u8; 3])
        }
        fn describe(&self, index: usize) -> String {
            index.to_string()
        }
    }

    fn loader() -> Loader {
        let recipe = Recipe::new(RecipeConfig::new(RecipeName::Eval, 1)).unwrap();
        let config = LoaderConfig {
            batch_size: 2,
            workers: 1,
            ..LoaderConfig::default()
        };
        Loader::new(Arc::new(Dots), vec![recipe], config).unwrap()
    }

    fn report(step: u64, loss: f64, contrast_top1: f64) -> StepReport {
        let statistics = BatchStatistics {
            loss,
            contrast_top1,
            positive_similarity: 0.9,
            negative_similarity: 0.1,
            gradient_scale: 0.5,
            gradient_scale_deviation: 0.1,
            guaranteed_bound: 1.0,
            paper_bound: 2.0,
        };
        // The two axes of the plane.
        let embeddings = Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        StepReport {
            step,
            learning_rate: 0.25,
            statistics,
            embeddings: [embeddings.clone(), embeddings],
        }
    }

    /// A context that never waits for anything.
    fn context<'a>(
        interrupt: &'a Interrupt,
        parts: (&'a mut Progress, &'a mut Journal, &'a Profiler),
        run: &'a RunConfig,
        started: (Instant, u64),
    ) -> EpochContext<'a> {
        let (progress, journal, profiler) = parts;
        EpochContext {
            interrupt,
            progress,
            journal,
            profiler,
            run,
            chance_loss: 5.5,
            knn_top1: None,
            started,
        }
    }

    /// Runs the rest of an epoch of five steps from `next_step`, numbering the steps for `step`; also the metrics' lines.
    fn run(
        next_step: u64,
        log_every_steps: u64,
        interrupt: &Interrupt,
        mut step: impl FnMut(&Batch, u64) -> Result<StepReport>,
    ) -> (Result<EpochTotals>, Position, Vec<Value>) {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        let mut position = Position {
            next_step,
            steps_per_epoch: 5,
            epochs: 3,
        };
        let (mut progress, mut journal) = (Progress::on_stderr(), Journal::open(&run).unwrap());
        let settings = RunConfig {
            log_every_steps,
            geometry_every_steps: 4,
            ..RunConfig::default()
        };
        let profiler = Profiler::off();
        let parts = (&mut progress, &mut journal, &profiler);
        let started = (Instant::now(), next_step);
        let mut context = context(interrupt, parts, &settings, started);
        let Cursor { epoch, next_batch } = position.cursor();
        let mut number = next_step..;
        let totals = train_epoch(
            loader().epoch(epoch, next_batch),
            &mut position,
            &mut context,
            |batch| step(batch, number.next().unwrap()),
        );
        let text = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (totals, position, lines)
    }

    #[test]
    fn an_epoch_does_every_step_once_and_means_are_means() {
        let mut seen = Vec::new();
        let (totals, position, lines) = run(5, 2, &Interrupt::default(), |batch, step| {
            seen.push((step, batch.len()));
            Ok(report(
                step + 1,
                step as f64,
                if step < 7 { 1.0 } else { 0.0 },
            ))
        });
        let totals = totals.unwrap();
        assert_eq!(seen, [(5, 2), (6, 2), (7, 2), (8, 2), (9, 2)]);
        assert_eq!((totals.loss(), totals.contrast_top1()), (7.0, 0.4));
        assert_eq!(position.next_step, 10);
        assert_eq!(
            position.cursor(),
            Cursor {
                epoch: 2,
                next_batch: 0
            }
        );
        assert!(!position.is_finished());

        let steps: Vec<u64> = lines
            .iter()
            .map(|line| line["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, [6, 8]);
        assert_eq!(
            (&lines[0]["kind"], &lines[0]["epoch"]),
            (&"step".into(), &1.into())
        );
        assert_eq!(
            (&lines[0]["loss"], &lines[0]["learning_rate"]),
            (&6.0.into(), &0.25.into())
        );
        assert_eq!(lines[0]["guaranteed_bound"], 1.0);
        // Geometry on steps 4, 8, ...: two axes are two directions.
        assert!(lines[0].get("effective_rank").is_none());
        assert!((lines[1]["effective_rank"].as_f64().unwrap() - 2.0).abs() < 1e-6);
        assert!(lines[0]["timing"]["seconds"].as_f64().unwrap() > 0.0);
    }

    #[test]
    fn the_first_batch_of_a_resumed_epoch_is_the_one_that_was_next() {
        let collect = |next_step| {
            let mut seen = Vec::new();
            let (totals, ..) = run(next_step, 1, &Interrupt::default(), |batch, step| {
                seen.push((step, batch.indices.clone()));
                Ok(report(step + 1, 1.0, 1.0))
            });
            totals.unwrap();
            seen
        };
        let whole = collect(5);
        let rest = collect(7);
        assert_eq!((whole.len(), rest.len()), (5, 3));
        assert_eq!(whole[2..], rest);
    }

    #[test]
    fn an_interrupt_ends_the_epoch_after_the_step_in_hand() {
        let interrupt = Interrupt::default();
        let mut done = 0;
        let (totals, position, lines) = run(0, 1, &interrupt, |_, step| {
            done += 1;
            if step == 2 {
                interrupt.request();
            }
            Ok(report(step + 1, 1.0, 1.0))
        });
        totals.unwrap();
        assert_eq!((done, position.next_step, lines.len()), (3, 3, 3));
    }

    #[test]
    fn a_step_that_fails_is_neither_counted_nor_recorded() {
        let (totals, position, lines) = run(5, 1, &Interrupt::default(), |_, step| {
            anyhow::ensure!(step != 7, "diverged");
            Ok(report(step + 1, 1.0, 1.0))
        });
        assert_eq!(totals.unwrap_err().to_string(), "diverged");
        assert_eq!((position.next_step, lines.len()), (7, 2));
    }

    #[test]
    fn the_display_counts_from_one_and_estimates_from_steps_done() {
        let mut totals = EpochTotals::default();
        let (second, half) = (Duration::from_secs(1), Duration::from_millis(500));
        for _ in 0..4 {
            totals.add(10, &report(1, 2.0, 0.5).statistics, second, half);
        }
        let ago = Instant::now().checked_sub(Duration::from_secs(14)).unwrap();
        let position = Position {
            next_step: 14,
            steps_per_epoch: 10,
            epochs: 3,
        };
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        let (mut progress, mut journal) = (Progress::on_stderr(), Journal::open(&run).unwrap());
        let (interrupt, profiler) = (Interrupt::default(), Profiler::off());
        let parts = (&mut progress, &mut journal, &profiler);
        let settings = RunConfig::default();
        let context = context(&interrupt, parts, &settings, (ago, 0));
        let standing = totals.standing(&position, &context);
        assert_eq!((standing.gradient_scale, standing.chance_loss), (0.5, 5.5));
        assert_eq!((standing.epoch, standing.epochs), (2, 3));
        assert_eq!((standing.step, standing.steps), (4, 10));
        assert_eq!(
            (standing.images_per_second, standing.data_wait_share),
            (10.0, 0.5)
        );
        // 14 of 30 steps took 14 s; the other 16 will take 16 s.
        assert_eq!(standing.remaining.as_secs(), 16);

        let end = Position {
            next_step: 10,
            ..position
        };
        let standing = totals.standing(&end, &context);
        assert_eq!((standing.epoch, standing.step), (1, 10));
    }
}
