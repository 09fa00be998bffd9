//! Tests of the loop over an epoch.

use std::fs;
use std::sync::{Arc, LazyLock};

use candle_core::Device;
use eqco_core::cuda::Queue;
use eqco_core::{Alpha, BatchStatistics, ContrastiveLoss, LossConfig, Negatives, WantedGradients};
use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{Dataset, Image};
use eqco_models::method::Statistics;
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
    report_with(step, Statistics::known(statistics(loss, contrast_top1)))
}

fn statistics(loss: f64, contrast_top1: f64) -> BatchStatistics {
    BatchStatistics {
        loss,
        contrast_top1,
        positive_similarity: 0.9,
        negative_similarity: 0.1,
        gradient_scale: 0.5,
        gradient_scale_deviation: 0.1,
        guaranteed_bound: 1.0,
        paper_bound: 2.0,
    }
}

fn report_with(step: u64, statistics: Statistics) -> StepReport {
    // The two axes of the plane.
    let embeddings = Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
    StepReport {
        step,
        learning_rate: 0.25,
        statistics,
        embeddings: [embeddings.clone(), embeddings],
        gradient_norms: None,
        skipped: None,
    }
}

/// The only process.
fn alone() -> &'static ProcessGroup {
    static ALONE: LazyLock<ProcessGroup> = LazyLock::new(ProcessGroup::alone);
    &ALONE
}

/// What an epoch notes.
struct Noted {
    skipped: BTreeSet<u32>,
    nonfinite: NonfiniteSteps,
    collapse: CollapseAlarm,
}

impl Noted {
    fn nothing() -> Self {
        Self {
            skipped: BTreeSet::new(),
            nonfinite: NonfiniteSteps::unwritten(),
            collapse: CollapseAlarm::new(RunConfig::default().collapse, 3),
        }
    }
}

/// A context that never waits for anything.
fn context<'a>(
    interrupt: &'a Interrupt,
    parts: (
        &'a mut Progress,
        &'a mut Journal,
        &'a Profiler,
        &'a mut Noted,
    ),
    run: &'a RunConfig,
    started: (Instant, u64),
) -> EpochContext<'a> {
    let (progress, journal, profiler, noted) = parts;
    EpochContext {
        group: alone(),
        interrupt,
        progress,
        journal,
        profiler,
        run,
        chance_loss: 5.5,
        knn_top1: None,
        started,
        due: None,
        skipped: &mut noted.skipped,
        nonfinite: &mut noted.nonfinite,
        collapse: &mut noted.collapse,
        own_keys: &[],
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
    let (profiler, mut noted) = (Profiler::off(), Noted::nothing());
    let parts = (&mut progress, &mut journal, &profiler, &mut noted);
    let started = (Instant::now(), next_step);
    let mut context = context(interrupt, parts, &settings, started);
    let Cursor { epoch, next_batch } = position.cursor();
    let mut number = next_step..;
    let mut totals = EpochTotals::default();
    let paused = train_epoch(
        &mut loader().epoch(epoch, next_batch),
        &mut position,
        &mut totals,
        &mut context,
        |batch| step(batch, number.next().unwrap()),
    );
    let totals = paused.map(|_| totals);
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

/// The pauses of an epoch of five steps with a checkpoint every two steps, each with the steps done and recorded.
fn pauses(statistics: impl Fn() -> Statistics) -> Vec<(Pause, u64, usize)> {
    let folder = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(folder.path()).unwrap();
    let (mut progress, mut journal) = (Progress::on_stderr(), Journal::open(&folder).unwrap());
    let (interrupt, profiler) = (Interrupt::default(), Profiler::off());
    let settings = RunConfig {
        checkpoint_every_steps: 2,
        checkpoint_every_minutes: 0.0,
        ..RunConfig::default()
    };
    let mut position = Position {
        next_step: 5,
        steps_per_epoch: 5,
        epochs: 3,
    };
    let (mut totals, mut noted) = (EpochTotals::default(), Noted::nothing());
    let mut batches = loader().epoch(1, 0);
    let mut seen: Vec<(Pause, u64, usize)> = Vec::new();
    while seen
        .last()
        .is_none_or(|(pause, ..)| *pause != Pause::EpochIsOver)
    {
        let parts = (&mut progress, &mut journal, &profiler, &mut noted);
        let mut context = context(&interrupt, parts, &settings, (Instant::now(), 5));
        context.due = Some(Due::new(&settings, Instant::now()));
        let step = |_: &Batch| Ok(report_with(0, statistics()));
        let pause = train_epoch(&mut batches, &mut position, &mut totals, &mut context, step);
        let recorded = journal.length().metrics_lines as usize;
        seen.push((pause.unwrap(), position.next_step, recorded));
    }
    assert_eq!(totals.sums.steps, 5);
    seen
}

#[test]
fn a_checkpoint_is_due_after_whole_steps_that_are_all_recorded() {
    let due = Pause::CheckpointIsDue(Reason::Steps);
    // That of step 10 is due when the epoch has been ended.
    let expected = [(due, 6, 1), (due, 8, 3), (Pause::EpochIsOver, 10, 5)];
    assert_eq!(pauses(|| Statistics::known(statistics(1.0, 1.0))), expected);
    if pending(1.0).is_some() {
        assert_eq!(pauses(|| pending(1.0).unwrap()), expected);
    }
}

#[test]
fn sums_survive_a_checkpoint_to_the_bit() {
    let sums = EpochSums {
        steps: 3,
        loss: 0.1 + 0.2,
        contrast_top1: f64::NAN,
        gradient_scale: f64::NEG_INFINITY,
        guaranteed_bound: -0.0,
    };
    let text = serde_json::to_string(&sums).unwrap();
    let read: EpochSums = serde_json::from_str(&text).unwrap();
    let of = |s: &EpochSums| {
        [
            s.loss,
            s.contrast_top1,
            s.gradient_scale,
            s.guaranteed_bound,
        ]
        .map(f64::to_bits)
    };
    assert_eq!((read.steps, of(&read)), (3, of(&sums)));
}

/// Statistics that are on their way from a device; `None`, and a line that says so, in a build without the emulator.
fn pending(first_value: f32) -> Option<Statistics> {
    let queue = Queue::emulated();
    if let Err(error) = &queue {
        eprintln!("NOT RUN: {error}");
    }
    let rows = Tensor::new(&[[first_value, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
    let loss = ContrastiveLoss::new(LossConfig {
        temperature: 1.0,
        alpha: Alpha::Infonce,
    });
    let (negatives, wanted) = (Negatives::Shared(&rows), WantedGradients::QUERIES);
    let enqueued = loss
        .unwrap()
        .enqueue(&queue.ok()?, &rows, &rows, negatives, wanted);
    Some(enqueued.unwrap().figures.into())
}

#[test]
fn statistics_on_their_way_are_looked_at_a_step_later_and_none_is_left_out() {
    if pending(1.0).is_none() {
        return;
    }
    let interrupt = Interrupt::default();
    let (totals, position, lines) = run(0, 1, &interrupt, |_, step| {
        Ok(report_with(step + 1, pending(1.0).unwrap()))
    });
    // Of both queries, the positive is one of two negatives, too: ln(1 + (e + 1) / e), in f32.
    let expected = (2.0 + (-1f64).exp()).ln();
    assert!((totals.unwrap().loss() - expected).abs() < 1e-6);
    assert_eq!((position.next_step, lines.len()), (5, 5));
    for (step, line) in lines.iter().enumerate() {
        assert_eq!((&line["step"], &line["epoch"]), (&step.into(), &0.into()));
    }

    let mut taken = 0;
    let (totals, position, lines) = run(5, 1, &interrupt, |_, step| {
        taken += 1;
        let value = if step == 6 { f32::NAN } else { 1.0 };
        Ok(report_with(step + 1, pending(value).unwrap()))
    });
    let message = totals.unwrap_err().to_string();
    assert!(message.contains("the loss of step 6 is NaN"), "{message}");
    // The step that diverged, its successor which was under way, and nothing after it.
    assert_eq!((taken, position.next_step, lines.len()), (3, 6, 1));
}

#[test]
fn the_display_counts_from_one_and_estimates_from_steps_done() {
    let mut totals = EpochTotals::default();
    // An epoch all of whose steps were skipped has no loss of 0.
    assert!(totals.loss().is_nan() && totals.guaranteed_bound().is_nan());
    let (second, half) = (Duration::from_secs(1), Duration::from_millis(500));
    for _ in 0..4 {
        totals.add(10, &statistics(2.0, 0.5), second, half);
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
    let mut noted = Noted::nothing();
    let parts = (&mut progress, &mut journal, &profiler, &mut noted);
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
