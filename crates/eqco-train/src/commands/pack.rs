//! `eqco-train pack`: a data set in one file.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use eqco_data::dataset::ReadingInOrder;
use eqco_data::dataset::packed::{Change, PackWriter, Reduction, StoredImage, stored_image};
use eqco_data::{DataError, Dataset, Split, open_as};

use crate::cli::{PackArgs, PartsArg};
use crate::in_order::in_order;
use crate::interrupt::{EXIT_STATUS, Interrupt};
use crate::progress::Progress;

/// The quality at which most pictures show no difference.
const QUALITY: u8 = 90;

/// Undecodable images that are named.
const MOST_NAMED: usize = 5;

const UNREADABLE: &str =
    "an image cannot be read; repair or remove it (`eqco-train inspect --scan` lists all of them)";

const HEARD: &str = "stopping; nothing will be written. Ctrl-C again stops at once";

pub(super) fn run(arguments: &PackArgs) -> Result<ExitCode> {
    let mut progress = Progress::on_stderr();
    let reduction = arguments
        .max_side
        .map(|side| Reduction::new(side, arguments.quality.unwrap_or(QUALITY)))
        .transpose()?;
    let parts = open_parts(arguments)?;
    let (_, first) = &parts[0];
    let name = reduction.map_or(first.name().to_owned(), |reduction| {
        reduction.name_of(first.name())
    });
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(usize::from(arguments.threads))
        .build()
        .with_context(|| format!("{} threads cannot be started", arguments.threads))?;
    let interrupt = Interrupt::listen_and_say(HEARD).context("Ctrl-C cannot be listened to")?;
    let writer = PackWriter::create(&arguments.out, &name, common_classes(&parts)?)?;
    let mut packing = Packing {
        writer,
        counts: Counts::default(),
        done: 0,
        total: parts.iter().map(|(_, dataset)| dataset.len()).sum(),
    };
    for (split, dataset) in &parts {
        let packed =
            pool.install(|| packing.part(*split, &**dataset, reduction, &interrupt, &mut progress));
        match packed {
            // Dropping the writer removes what there is.
            Err(error) if error.is::<Stopped>() => {
                progress.clear();
                progress.say("stopped: nothing has been written");
                return Ok(ExitCode::from(EXIT_STATUS as u8));
            }
            packed => packed?,
        }
    }
    progress.update_task("bringing it to the disk", None);
    let bytes = packing.writer.finish()?;
    progress.clear();
    packing.counts.warn(&progress);
    super::print(&summary(&arguments.out, &parts, &packing.counts, bytes))?;
    Ok(ExitCode::SUCCESS)
}

/// The wanted parts, the training part first.
fn open_parts(arguments: &PackArgs) -> Result<Vec<(Split, Arc<dyn Dataset>)>> {
    let part =
        |split| Ok::<_, DataError>((split, open_as(&arguments.data, split, arguments.format)?));
    Ok(match arguments.split {
        PartsArg::Train => vec![part(Split::Train)?],
        PartsArg::Test => vec![part(Split::Test)?],
        PartsArg::Both => {
            let train = part(Split::Train)?;
            let test = part(Split::Test).context(
                "the test images cannot be opened; --split train packs the training images alone",
            )?;
            vec![train, test]
        }
    })
}

/// The classes of all parts: one of two may lack the last ones.
fn common_classes(parts: &[(Split, Arc<dyn Dataset>)]) -> Result<&[String], DataError> {
    let mut classes = parts[0].1.class_names();
    for (_, part) in &parts[1..] {
        let (one, other) = (classes, part.class_names());
        let (longer, shorter) = if one.len() < other.len() {
            (other, one)
        } else {
            (one, other)
        };
        if !longer.starts_with(shorter) || (shorter.is_empty() && !longer.is_empty()) {
            return Err(DataError::InvalidSetting {
                setting: "split",
                expected: "training and test images of the same classes, or one part alone"
                    .to_owned(),
                got: format!("the classes {} and {}", listed(one), listed(other)),
            });
        }
        classes = longer;
    }
    Ok(classes)
}

/// The first few names.
fn listed(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let more = if names.len() > shown.len() {
        ", ..."
    } else {
        ""
    };
    format!("[{}{more}]", shown.join(", "))
}

/// The user has stopped it.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped;

/// A file in the making.
struct Packing {
    writer: PackWriter,
    counts: Counts,
    done: usize,
    total: usize,
}

impl Packing {
    /// Packs all images of a part, on the current rayon pool.
    fn part(
        &mut self,
        split: Split,
        dataset: &dyn Dataset,
        reduction: Option<Reduction>,
        interrupt: &Interrupt,
        progress: &mut Progress,
    ) -> Result<()> {
        let stored = |index| {
            let is_wanted = !interrupt.is_requested();
            is_wanted.then(|| stored_image(dataset, index, reduction))
        };
        let reading = ReadingInOrder::begin(dataset);
        in_order(dataset.len(), stored, |index, stored| {
            reading.advance(index + 1);
            let stored = stored.ok_or(Stopped)?.context(UNREADABLE);
            let StoredImage { bytes, change } = stored?;
            self.writer.add(split, dataset.label(index), &bytes)?;
            self.counts.note(change, || dataset.describe(index));
            self.done += 1;
            progress.update_task("packing images", Some(self.done as f64 / self.total as f64));
            Ok(())
        })
    }
}

/// What was done to how many images.
#[derive(Debug, Default)]
struct Counts {
    kept: usize,
    png: usize,
    reduced: usize,
    undecodable: usize,
    /// The first undecodable ones with their reasons.
    named: Vec<String>,
}

impl Counts {
    fn note(&mut self, change: Change, describe: impl FnOnce() -> String) {
        match change {
            Change::None => self.kept += 1,
            Change::Png => self.png += 1,
            Change::Reduced => self.reduced += 1,
            Change::Undecodable(reason) => {
                self.undecodable += 1;
                if self.named.len() < MOST_NAMED {
                    self.named.push(format!("{}: {reason}", describe()));
                }
            }
        }
    }

    fn warn(&self, progress: &Progress) {
        if self.undecodable == 0 {
            return;
        }
        progress.say(&format!(
            "warning: {} images cannot be decoded and were packed as they are; a run will count them as unreadable:",
            self.undecodable
        ));
        for image in &self.named {
            progress.say(&format!("  {image}"));
        }
    }
}

fn summary(out: &Path, parts: &[(Split, Arc<dyn Dataset>)], counts: &Counts, bytes: u64) -> String {
    let count = |wanted| {
        parts
            .iter()
            .find(|(split, _)| *split == wanted)
            .map_or(0, |(_, part)| part.len())
    };
    let (out, megabytes) = (out.display(), bytes as f64 / 1e6);
    let (train, test) = (count(Split::Train), count(Split::Test));
    let mut text = format!("{out}: {train} training and {test} test images, {megabytes:.1} MB\n");
    let changes = [
        (counts.kept, "kept as they are"),
        (counts.png, "stored as PNG files of their pixels"),
        (counts.reduced, "made smaller"),
        (counts.undecodable, "cannot be decoded, kept as they are"),
    ];
    for (count, change) in changes.into_iter().filter(|(count, _)| *count > 0) {
        let _ = writeln!(text, "  {count} {change}");
    }
    text
}
