//! When a checkpoint is due.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::RunConfig;

/// Why a checkpoint is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// `run.checkpoint_every_steps`.
    Steps,
    /// `run.checkpoint_every_epochs`.
    Epochs,
    /// `run.checkpoint_every_minutes`.
    Minutes,
    /// The run was asked to stop.
    Stop,
    /// The run is over.
    End,
}

impl Reason {
    /// Whether the configuration alone decides that it is taken here. The others depend on the clock or on somebody who
    /// stopped the run, and leave no trace in the metrics, which are those of an undisturbed run.
    pub fn is_of_the_run(self) -> bool {
        matches!(self, Self::Steps | Self::Epochs | Self::End)
    }
}

/// The intervals of a run, and when its last checkpoint was taken.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// 0 for never.
    every_steps: u64,
    every_epochs: u64,
    every: Option<Duration>,
    last: Instant,
}

impl Due {
    /// The intervals of `run`, where one was taken at `now`.
    pub fn new(run: &RunConfig, now: Instant) -> Self {
        let seconds = 60.0 * run.checkpoint_every_minutes;
        let every = Duration::try_from_secs_f64(seconds).ok();
        Self {
            every_steps: run.checkpoint_every_steps,
            every_epochs: run.checkpoint_every_epochs,
            every: every.filter(|every| !every.is_zero()),
            last: now,
        }
    }

    /// Whether one is due within an epoch, when `steps` have been done.
    pub fn after_step(&self, steps: u64, now: Instant) -> Option<Reason> {
        if self.every_steps > 0 && steps.is_multiple_of(self.every_steps) {
            return Some(Reason::Steps);
        }
        let is_old = |every: Duration| now.saturating_duration_since(self.last) >= every;
        self.every.is_some_and(is_old).then_some(Reason::Minutes)
    }

    /// Whether one is due at the end of an epoch, when `epochs` and `steps` have been done.
    pub fn after_epoch(&self, epochs: u64, steps: u64, now: Instant) -> Option<Reason> {
        if self.every_epochs > 0 && epochs.is_multiple_of(self.every_epochs) {
            return Some(Reason::Epochs);
        }
        self.after_step(steps, now)
    }

    /// One was taken.
    pub fn taken(&mut self, now: Instant) {
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interval_has_its_say_and_zero_is_never() {
        let begin = Instant::now();
        let run = RunConfig {
            checkpoint_every_epochs: 2,
            checkpoint_every_steps: 7,
            checkpoint_every_minutes: 0.5,
            ..RunConfig::default()
        };
        let mut due = Due::new(&run, begin);
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(due.after_step(6, after(29)), None);
        assert_eq!(due.after_step(14, after(40)), Some(Reason::Steps));
        assert_eq!(due.after_step(6, after(30)), Some(Reason::Minutes));
        assert_eq!(due.after_epoch(4, 20, begin), Some(Reason::Epochs));
        assert_eq!(due.after_epoch(3, 15, begin), None);
        assert_eq!(due.after_epoch(3, 21, begin), Some(Reason::Steps));
        assert_eq!(due.after_epoch(3, 15, after(31)), Some(Reason::Minutes));
        due.taken(after(31));
        assert_eq!(due.after_step(6, after(60)), None);
        assert_eq!(due.after_step(6, after(61)), Some(Reason::Minutes));
        // A clock that was read earlier on another thread is no reason to panic.
        assert_eq!(due.after_step(6, begin), None);

        let run = RunConfig {
            checkpoint_every_minutes: 0.0,
            ..RunConfig::default()
        };
        assert_eq!(Due::new(&run, begin).after_step(7, after(1 << 30)), None);
    }
}
