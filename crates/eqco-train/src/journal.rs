//! Where a run writes down how it goes: `metrics.jsonl` for programs, event files for TensorBoard.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::metrics::{EpochRecord, KnnRecord, Record, StepRecord};
use crate::run_folder::{MetricsFile, RunFolder, RunFolderError};
use crate::tensorboard::EventFile;

/// Both files of one run, or neither.
#[derive(Debug)]
pub struct Journal(Option<Files>);

#[derive(Debug)]
struct Files {
    folder: RunFolder,
    metrics: MetricsFile,
    events: EventFile,
}

impl Journal {
    /// Opens the files of `folder`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn open(folder: &RunFolder) -> Result<Self, RunFolderError> {
        let now = now();
        Ok(Self(Some(Files {
            folder: folder.clone(),
            metrics: folder.metrics()?,
            events: folder.events(now)?,
        })))
    }

    /// A journal that nothing is written to: that of all ranks but the first.
    pub fn none() -> Self {
        Self(None)
    }

    /// Writes a record to the metrics, and its numbers to the events.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&mut self, record: &Record) -> Result<(), RunFolderError> {
        let Some(files) = &mut self.0 else {
            return Ok(());
        };
        files.metrics.write(record)?;
        let (step, scalars) = match record {
            Record::Step(step) => (step.step, of_step(step)),
            Record::Epoch(epoch) => (epoch.step, of_epoch(epoch)),
            Record::Knn(knn) => (knn.step, of_knn(knn)),
            Record::Run(_) | Record::Checkpoint(_) | Record::End(_) => return Ok(()),
        };
        let written = files.events.add(now(), step, &scalars);
        written.map_err(|source| files.folder.events_failed(source))
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

fn of_step(record: &StepRecord) -> Vec<(&'static str, f64)> {
    let statistics = &record.statistics;
    let mut scalars = vec![
        ("loss/loss", statistics.loss),
        ("loss/chance", record.chance_loss),
        ("information/guaranteed_bound", statistics.guaranteed_bound),
        ("information/paper_bound", statistics.paper_bound),
        ("gradient/scale", statistics.gradient_scale),
        (
            "gradient/scale_deviation",
            statistics.gradient_scale_deviation,
        ),
        ("similarity/positive", statistics.positive_similarity),
        ("similarity/negative", statistics.negative_similarity),
        ("similarity/contrast_top1", statistics.contrast_top1),
        ("training/learning_rate", record.learning_rate),
        ("speed/images_per_second", record.timing.images_per_second),
        ("speed/data_wait_share", record.timing.data_wait_share()),
    ];
    if let Some(geometry) = &record.geometry {
        scalars.extend([
            ("geometry/alignment", geometry.alignment),
            ("geometry/uniformity", geometry.uniformity),
            ("geometry/effective_rank", geometry.effective_rank),
        ]);
    }
    scalars
}

fn of_epoch(record: &EpochRecord) -> Vec<(&'static str, f64)> {
    vec![
        ("epoch/loss", record.loss),
        ("epoch/contrast_top1", record.contrast_top1),
        ("epoch/gradient_scale", record.gradient_scale),
        ("epoch/images_per_second", record.timing.images_per_second),
        ("epoch/skipped_images", record.skipped_images as f64),
    ]
}

fn of_knn(record: &KnnRecord) -> Vec<(&'static str, f64)> {
    vec![("evaluation/knn_top1", record.knn_top1)]
}
