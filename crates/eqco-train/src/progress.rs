//! What a person sees while a run trains: one bar an epoch on a terminal, one line an epoch anywhere.

use std::io::{self, Write};
use std::time::Duration;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

/// The narrowest bar worth drawing, and the widest, in columns.
const BAR_COLUMNS: std::ops::RangeInclusive<usize> = 6..=40;

/// Redraws a second.
const REDRAWS: u8 = 10;

/// Where a run stands, in numbers that a person follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The epoch in hand, from 1.
    pub epoch: u64,
    /// Epochs of the run.
    pub epochs: u64,
    /// Steps done in this epoch.
    pub step: u64,
    /// Steps of an epoch.
    pub steps: u64,
    /// Mean loss of this epoch so far, in nats.
    pub loss: f64,
    /// The loss while all similarities are equal, in nats.
    pub chance_loss: f64,
    /// Mean share of queries, 0 to 1, whose positive is the most similar key.
    pub contrast_top1: f64,
    /// Mean gradient scale of this epoch so far, 0 to 1.
    pub gradient_scale: f64,
    /// Mean guaranteed bound on mutual information, in nats.
    pub guaranteed_bound: f64,
    /// kNN top-1 in percent, as last measured.
    pub knn_top1: Option<f64>,
    /// Training images a second in this epoch, data waits included.
    pub images_per_second: f64,
    /// Share of this epoch's time, 0 to 1, spent waiting for the loader.
    pub data_wait_share: f64,
    /// Time since this epoch began.
    pub elapsed: Duration,
    /// Estimated time to the end of the run.
    pub remaining: Duration,
}

/// The display on stderr.
#[derive(Debug)]
pub struct Progress {
    bars: MultiProgress,
    terminal: Term,
    bar: Option<ProgressBar>,
    is_silent: bool,
}

impl Progress {
    /// Draws on stderr if that is a terminal, and writes plain lines to it if not.
    pub fn on_stderr() -> Self {
        let terminal = Term::stderr();
        let target = ProgressDrawTarget::term(terminal.clone(), REDRAWS);
        Self {
            bars: MultiProgress::with_draw_target(target),
            terminal,
            bar: None,
            is_silent: false,
        }
    }

    /// Shows nothing: that of all ranks but the first. Log lines are still written.
    pub fn silent() -> Self {
        let mut progress = Self::on_stderr();
        progress.is_silent = true;
        progress
    }

    /// A writer for log lines that keeps them and the bar apart.
    pub fn log_writer(&self) -> LogWriter {
        LogWriter {
            bars: self.bars.clone(),
        }
    }

    /// Shows where the epoch stands.
    pub fn update(&mut self, standing: &Standing) {
        self.show(|columns| bar_line(standing, columns));
    }

    /// Shows a task other than training, with the share of it that is done, 0 to 1, where that is known.
    pub fn update_task(&mut self, name: &str, done: Option<f64>) {
        self.show(|columns| task_line(name, done, columns));
    }

    /// Draws the line for the terminal's width; nothing where there is no terminal.
    fn show(&mut self, line: impl FnOnce(usize) -> String) {
        if self.is_silent || !self.terminal.is_term() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg}").expect("the template is constant");
            self.bars.add(ProgressBar::new_spinner().with_style(style))
        });
        let (_, columns) = self.terminal.size();
        bar.set_message(line(usize::from(columns)));
    }

    /// Replaces the bar by one line that stays.
    pub fn end_epoch(&mut self, standing: &Standing) {
        self.clear();
        self.say(&epoch_line(standing));
    }

    /// Writes a line that stays, above the bar if there is one. A stderr that is closed is no reason to stop a run.
    pub fn say(&self, line: &str) {
        if self.is_silent {
            return;
        }
        self.bars.suspend(|| {
            let _ = writeln!(io::stderr(), "{line}");
        });
    }

    /// Takes the bar off the screen.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Makes log lines step aside for the bar.
#[derive(Clone, Debug)]
pub struct LogWriter {
    bars: MultiProgress,
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The line that changes while an epoch runs, at most `columns - 1` columns wide: as much as fits, the most important
/// first, and a bar in what is left.
fn bar_line(standing: &Standing, columns: usize) -> String {
    // A line that fills the last column makes some terminals wrap.
    let room = columns.saturating_sub(1);
    let by_importance = [
        format!("epoch {}/{}", standing.epoch, standing.epochs),
        format!("ETA {}", clock(standing.remaining)),
        format!("loss {:.3}/{:.2}", standing.loss, standing.chance_loss),
        format!("contrast {:.0}%", 100.0 * standing.contrast_top1),
        format!("{:.0} images/s", standing.images_per_second),
        format!("data {:.0}%", 100.0 * standing.data_wait_share),
        format!("g {:.2}", standing.gradient_scale),
        format!("MI>={:.2}", standing.guaranteed_bound),
    ];
    let knn = standing.knn_top1.map(|top1| format!("kNN {top1:.1}%"));
    let mut used = 0;
    let mut parts = Vec::new();
    for part in by_importance.into_iter().chain(knn) {
        let needed = part.chars().count() + usize::from(!parts.is_empty());
        if used + needed > room {
            break;
        }
        used += needed;
        parts.push(part);
    }
    if parts.is_empty() {
        let percent = 100 * standing.step / standing.steps.max(1);
        return format!("{percent}%").chars().take(room).collect();
    }
    let left = room.saturating_sub(used + 1);
    if left >= *BAR_COLUMNS.start() {
        parts.insert(
            1,
            bar(standing.step, standing.steps, left.min(*BAR_COLUMNS.end())),
        );
    }
    parts.join(" ")
}

/// The line of a task, at most `columns - 1` columns wide.
fn task_line(name: &str, done: Option<f64>, columns: usize) -> String {
    let percent = done.map_or(String::new(), |share| format!("{:>3.0}% ", 100.0 * share));
    format!("{percent}{name}")
        .chars()
        .take(columns.saturating_sub(1))
        .collect()
}

fn bar(done: u64, total: u64, columns: usize) -> String {
    let filled = (columns as u64 * done.min(total) / total.max(1)) as usize;
    format!("{}{}", "━".repeat(filled), "─".repeat(columns - filled))
}

/// The line that stays when an epoch is over.
fn epoch_line(standing: &Standing) -> String {
    let width = standing.epochs.to_string().len();
    let knn = standing
        .knn_top1
        .map_or(String::new(), |top1| format!("  kNN {top1:.1}%"));
    format!(
        "epoch {:>width$}/{}  loss {:.4} (chance {:.3})  contrast {:.1}%  g {:.2}  MI>={:.2}{knn}  {:.0} images/s  \
         data wait {:.1}%  {}",
        standing.epoch,
        standing.epochs,
        standing.loss,
        standing.chance_loss,
        100.0 * standing.contrast_top1,
        standing.gradient_scale,
        standing.guaranteed_bound,
        standing.images_per_second,
        100.0 * standing.data_wait_share,
        clock(standing.elapsed),
    )
}

/// `M:SS`, or `H:MM:SS` from an hour on.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDING: Standing = Standing {
        epoch: 3,
        epochs: 20,
        step: 39,
        steps: 78,
        loss: 2.31449,
        chance_loss: 5.549,
        contrast_top1: 0.872,
        gradient_scale: 0.904,
        guaranteed_bound: 1.531,
        knn_top1: None,
        images_per_second: 911.6,
        data_wait_share: 0.031,
        elapsed: Duration::from_secs(11),
        remaining: Duration::from_secs(250),
    };

    #[test]
    fn eighty_columns_show_most_and_hundred_everything() {
        assert_eq!(
            bar_line(&STANDING, 80),
            "epoch 3/20 ETA 4:10 loss 2.314/5.55 contrast 87% 912 images/s data 3% g 0.90"
        );
        let measured = Standing {
            knn_top1: Some(43.07),
            ..STANDING
        };
        assert_eq!(
            bar_line(&measured, 106),
            "epoch 3/20 ━━━━───── ETA 4:10 loss 2.314/5.55 contrast 87% 912 images/s data 3% g 0.90 MI>=1.53 kNN 43.1%"
        );
    }

    #[test]
    fn twenty_columns_show_what_matters_most() {
        assert_eq!(bar_line(&STANDING, 20), "epoch 3/20 ETA 4:10");
    }

    #[test]
    fn no_width_is_ever_exceeded() {
        let long = Standing {
            epoch: 1000,
            epochs: 1000,
            loss: 12345.678,
            ..STANDING
        };
        for standing in [STANDING, long] {
            for columns in 0..=250 {
                let line = bar_line(&standing, columns);
                assert!(
                    line.chars().count() <= columns.saturating_sub(1),
                    "{columns}: {line}"
                );
            }
        }
    }

    #[test]
    fn the_bar_is_empty_at_the_start_and_full_at_the_end() {
        assert_eq!(bar(0, 78, 6), "──────");
        assert_eq!(bar(77, 78, 6), "━━━━━─");
        assert_eq!(bar(78, 78, 6), "━━━━━━");
        assert_eq!(bar(0, 0, 6), "──────");
    }

    #[test]
    fn the_line_of_a_task_keeps_its_width() {
        assert_eq!(
            task_line("reading images", Some(0.5), 80),
            " 50% reading images"
        );
        assert_eq!(
            task_line("kNN and linear probe", None, 20),
            "kNN and linear prob"
        );
    }

    #[test]
    fn the_line_of_a_finished_epoch() {
        assert_eq!(
            epoch_line(&STANDING),
            "epoch  3/20  loss 2.3145 (chance 5.549)  contrast 87.2%  g 0.90  MI>=1.53  912 images/s  data wait 3.1%  0:11"
        );
    }

    #[test]
    fn clocks() {
        assert_eq!(clock(Duration::from_millis(59_600)), "1:00");
        assert_eq!(clock(Duration::from_secs(9)), "0:09");
        assert_eq!(clock(Duration::from_secs(3_723)), "1:02:03");
    }
}
