//! What was found out about a data set, for people and machines.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::{DrawnViews, HeaderSample, LabelCounts, Scan, Spread};

/// Class names in the short form of the text.
const MOST_NAMES: usize = 5;
/// Bad images in the text.
const MOST_BAD: usize = 20;

/// Everything that was found out. Serialised, it is the answer to `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The data set's name.
    pub data: String,
    /// `train` or `test`.
    pub split: &'static str,
    /// Images of this part.
    pub images: usize,
    /// Class names in the order of labels.
    pub class_names: Vec<String>,
    /// Images of each class, if there are classes.
    pub labels: Option<LabelCounts>,
    /// What some headers say.
    pub sample: HeaderSample,
    /// The picture and what is on it, if one was wanted.
    pub grid: Option<Grid>,
    /// All that cannot be read, if that was wanted.
    pub scan: Option<Scan>,
}

/// A picture that was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grid {
    /// The file.
    pub path: PathBuf,
    /// What is on it.
    #[serde(flatten)]
    pub views: DrawnViews,
}

impl Report {
    /// For people; `with_table` adds a line for each class.
    pub fn text(&self, with_table: bool) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<8} {value}");
        };
        line("data", format!("{}, {} part", self.data, self.split));
        line("images", self.images.to_string());
        line("classes", self.classes());
        if let Some(labels) = &self.labels {
            line(
                "labels",
                format!("{} a class", range(labels.spread, "images")),
            );
        }
        self.sample_lines(&mut line);
        if let Some(Grid { path, views }) = &self.grid {
            let (name, size) = (
                crate::plan::named(&views.recipe.name),
                views.recipe.image_size,
            );
            let what = format!("{name} at {size} pixels, seed {}", views.seed);
            line(
                "grid",
                format!(
                    "{}: image, query view and key view by row; recipe {what}",
                    path.display()
                ),
            );
            for (row, image) in views.images.iter().enumerate() {
                line("", format!("row {}: {image}", row + 1));
            }
        }
        if let Some(scan) = &self.scan {
            scan_lines(scan, &mut line);
        }
        if with_table {
            text.push_str(&self.table());
        }
        text
    }

    fn classes(&self) -> String {
        if self.class_names.is_empty() {
            return "none: the images have no labels".to_owned();
        }
        let names = self.class_names.iter().take(MOST_NAMES);
        let names: Vec<&str> = names.map(String::as_str).collect();
        let more = if self.class_names.len() > MOST_NAMES {
            ", ..."
        } else {
            ""
        };
        format!("{}: {}{more}", self.class_names.len(), names.join(", "))
    }

    fn sample_lines(&self, line: &mut impl FnMut(&str, String)) {
        let sample = &self.sample;
        let unreadable = match sample.unreadable {
            0 => String::new(),
            count => format!(", {count} of them unreadable (--scan lists all)"),
        };
        line("sample", format!("{} images{unreadable}", sample.images));
        let formats = sample
            .formats
            .iter()
            .map(|(format, count)| format!("{count} {format}"));
        let formats: Vec<String> = formats.collect();
        if !formats.is_empty() {
            line("formats", formats.join("; "));
        }
        let spreads = [
            ("width", sample.width, "pixels"),
            ("height", sample.height, "pixels"),
            ("files", sample.bytes, "bytes"),
        ];
        for (name, spread, unit) in spreads {
            if let Some(spread) = spread {
                line(name, range(spread, unit));
            }
        }
    }

    fn table(&self) -> String {
        let Some(labels) = &self.labels else {
            return String::new();
        };
        let mut text = "\nlabel   images  class\n".to_owned();
        for (label, (count, name)) in labels.counts.iter().zip(&self.class_names).enumerate() {
            let _ = writeln!(text, "{label:>5}  {count:>7}  {name}");
        }
        text
    }
}

fn range(spread: Spread, unit: &str) -> String {
    let Spread { min, median, max } = spread;
    format!("{min} to {max} {unit}, median {median}")
}

fn scan_lines(scan: &Scan, line: &mut impl FnMut(&str, String)) {
    let (images, bad) = (scan.images, scan.bad.len());
    line("scan", format!("{images} images decoded, {bad} unreadable"));
    if bad == 0 {
        return;
    }
    for (reason, count) in &scan.reasons {
        line("", format!("{count}: {reason}"));
    }
    let share = 100.0 * bad as f64 / images as f64;
    let verdict = if scan.is_too_many() {
        "gives up"
    } else {
        "goes on without them"
    };
    let allowed = scan.max_bad_share;
    line(
        "",
        format!(
            "{share:.2} % of the images: a run {verdict} (data.loader.max_bad_share = {allowed})"
        ),
    );
    for image in scan.bad.iter().take(MOST_BAD) {
        line("bad", format!("{}: {}", image.image, image.reason));
    }
    if bad > MOST_BAD {
        line(
            "",
            format!("and {} more: --bad-list FILE writes all", bad - MOST_BAD),
        );
    }
}
