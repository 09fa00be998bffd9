//! Several runs at once, as many as cores and memory allow.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use super::{Finished, Grid, Launcher, Running, SweepError};
use crate::interrupt::Interrupt;

/// How often runs are looked at.
const PAUSE: Duration = Duration::from_millis(200);

/// Share of the memory that runs may take together.
const MEMORY_SHARE: f64 = 0.9;

/// What [`SideBySide::run`] tells whoever watches.
#[derive(Debug)]
pub enum Event<'a> {
    /// A run has begun.
    Started(usize),
    /// A run has ended.
    Finished(&'a Finished),
    /// Time has passed; these are under way, so many wait.
    Waiting(&'a [Running], usize),
}

/// The runs of a sweep that are still to do.
#[derive(Debug)]
pub struct SideBySide<'a> {
    grid: &'a Grid,
    launcher: &'a Launcher,
    waiting: VecDeque<usize>,
    memory_bytes: Option<u64>,
    largest: Option<u64>,
}

impl<'a> SideBySide<'a> {
    /// Those of `waiting`, by their place in `grid`, on a machine with so much memory in bytes, where that is known.
    pub fn new(
        grid: &'a Grid,
        launcher: &'a Launcher,
        waiting: impl IntoIterator<Item = usize>,
        memory_bytes: Option<u64>,
    ) -> Self {
        Self {
            grid,
            launcher,
            waiting: waiting.into_iter().collect(),
            memory_bytes,
            largest: None,
        }
    }

    /// Runs all of them. When the interrupt is requested no more begin, and those under way are asked to stop.
    ///
    /// # Errors
    /// When a run cannot be started or watched; those under way are asked to stop and waited for then.
    pub fn run(
        mut self,
        interrupt: &Interrupt,
        tell: &mut dyn FnMut(Event<'_>) -> Result<(), SweepError>,
    ) -> Result<(), SweepError> {
        let mut running = Vec::new();
        let result = self.go_on(&mut running, interrupt, tell);
        running.iter().for_each(Running::ask_to_stop);
        while !running.is_empty() {
            thread::sleep(PAUSE);
            running.retain_mut(|run| matches!(run.ended(), Ok(None)));
        }
        result
    }

    fn go_on(
        &mut self,
        running: &mut Vec<Running>,
        interrupt: &Interrupt,
        tell: &mut dyn FnMut(Event<'_>) -> Result<(), SweepError>,
    ) -> Result<(), SweepError> {
        while !interrupt.is_requested() {
            if running.is_empty() && self.waiting.is_empty() {
                break;
            }
            if !self.waiting.is_empty()
                && self.has_room(running)
                && let Some(index) = self.waiting.pop_front()
            {
                running.push(self.launcher.start(index, &self.grid.points[index])?);
                tell(Event::Started(index))?;
            }
            tell(Event::Waiting(running, self.waiting.len()))?;
            thread::sleep(PAUSE);
            self.largest = running
                .iter()
                .filter_map(Running::peak_memory)
                .chain(self.largest)
                .max();
            for finished in self.take_ended(running)? {
                tell(Event::Finished(&finished))?;
            }
        }
        Ok(())
    }

    /// Takes the runs that have ended out of those under way.
    fn take_ended(&self, running: &mut Vec<Running>) -> Result<Vec<Finished>, SweepError> {
        let mut ended = Vec::new();
        for run in running.iter_mut() {
            let folder = self.launcher.folder(&self.grid.points[run.index]);
            ended.extend(run.ended().map_err(SweepError::file(folder))?);
        }
        running.retain(|run| ended.iter().all(|finished| finished.index != run.index));
        Ok(ended)
    }

    /// Whether one more run may begin. The first one runs alone until it has shown how much memory it takes; where the
    /// system does not tell, cores alone decide.
    fn has_room(&self, running: &[Running]) -> bool {
        if running.is_empty() {
            return true;
        }
        running.len() < self.grid.jobs
            && running.iter().all(Running::is_under_way)
            && fits(self.memory_bytes, self.largest, running.len() + 1)
    }
}

/// Whether `count` runs of at most `largest` bytes fit into `memory` bytes.
fn fits(memory: Option<u64>, largest: Option<u64>, count: usize) -> bool {
    match (memory, largest) {
        (Some(memory), Some(largest)) => {
            largest as f64 * count as f64 <= memory as f64 * MEMORY_SHARE
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_fit_as_long_as_nine_tenths_of_the_memory_hold_the_largest_of_them() {
        assert!(fits(Some(10_000), Some(3_000), 3));
        assert!(!fits(Some(10_000), Some(3_001), 3));
        assert!(fits(None, Some(u64::MAX), 9));
        assert!(fits(Some(1), None, 9));
    }
}
