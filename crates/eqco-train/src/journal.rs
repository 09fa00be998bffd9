//! Where a run writes down how it goes: `metrics.jsonl` for programs, an event file for TensorBoard.

use std::fs::File;

use serde::{Deserialize, Serialize};

use crate::history::wall_time;
use crate::metrics::{EpochRecord, KnnRecord, Record, StepRecord};
use crate::run_folder::{MetricsFile, RunFolder, RunFolderError};
use crate::tensorboard::EventFile;

/// How much a journal holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalLength {
    /// Lines of the metrics.
    pub metrics_lines: u64,
    /// Records of the event file.
    pub event_records: u64,
}

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
        Ok(Self(Some(Files {
            folder: folder.clone(),
            metrics: folder.metrics()?,
            events: folder.events(wall_time())?,
        })))
    }

    /// Opens the files of `folder` as they were when they held `length`, for a run that goes on from there: what an earlier
    /// process has written after that is cut off.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn resume(folder: &RunFolder, length: JournalLength) -> Result<Self, RunFolderError> {
        Ok(Self(Some(Files {
            folder: folder.clone(),
            metrics: folder.resume_metrics(length.metrics_lines)?,
            events: folder.resume_events(length.event_records, wall_time())?,
        })))
    }

    /// How much it holds; nothing if nothing is written.
    pub fn length(&self) -> JournalLength {
        let of = |files: &Files| JournalLength {
            metrics_lines: files.metrics.lines(),
            event_records: files.events.records(),
        };
        self.0.as_ref().map(of).unwrap_or_default()
    }

    /// Its open files, for whoever brings them to the disk.
    ///
    /// # Errors
    /// When the system has no more of them to give.
    pub fn handles(&self) -> std::io::Result<Vec<File>> {
        match &self.0 {
            Some(files) => Ok(vec![files.metrics.handle()?, files.events.handle()?]),
            None => Ok(Vec::new()),
        }
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
            Record::Run(_)
            | Record::Checkpoint(_)
            | Record::Nonfinite(_)
            | Record::Collapse(_)
            | Record::End(_) => return Ok(()),
        };
        let written = files.events.add(wall_time(), step, &scalars);
        written.map_err(|source| files.folder.events_failed(source))
    }
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
            ("geometry/deviation", geometry.deviation),
        ]);
    }
    scalars.extend(record.gradient_norm.map(|norm| ("gradient/norm", norm)));
    scalars.extend(record.own_keys.map(|keys| ("negatives/own_keys", keys)));
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
