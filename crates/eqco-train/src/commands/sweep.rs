//! `eqco-train sweep`: a grid of runs, resumable, in one table.

use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cli::SweepArgs;
use crate::interrupt::{EXIT_STATUS, Interrupt};
use crate::machine::Machine;
use crate::progress::{Progress, clock};
use crate::ranks::{Ranks, RanksError};
use crate::run_folder::RunFolder;
use crate::sweep::{
    Event, Finished, Grid, Launcher, Outcome, RunState, Running, SideBySide, Stage, SweepError,
    estimate, summary, write_table,
};

pub(super) fn run(arguments: &SweepArgs) -> Result<ExitCode> {
    let ranks = Ranks::from_environment()?;
    if ranks.size() > 1 {
        let (command, size) = ("sweep", ranks.size());
        return Err(RanksError::OneProcess { command, size }.into());
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let grid = Grid::new(
        &arguments.vary,
        arguments.seeds,
        arguments.jobs,
        cores,
        &arguments.config,
    )?;
    let program = std::env::current_exe().context("this program cannot be found")?;
    let launcher = Launcher::new(program, &arguments.out, &arguments.config);
    let mut sweep = Sweep::look_at(&arguments.out, grid, launcher)?;
    if arguments.plan {
        return sweep.plan();
    }
    let _lock = lock(&arguments.out)?;
    let interrupt = Interrupt::listen().context("Ctrl-C cannot be listened to")?;
    sweep.go_on(&interrupt)?;
    sweep.finish(&interrupt)
}

/// Keeps a second sweep out of the folder for as long as the file is open.
fn lock(folder: &Path) -> Result<File, SweepError> {
    fs::create_dir_all(folder).map_err(SweepError::file(folder))?;
    let path = folder.join(".lock");
    let file = File::create(&path).map_err(SweepError::file(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(SweepError::Busy {
            path: folder.to_owned(),
        }),
        Err(fs::TryLockError::Error(source)) => Err(SweepError::file(path)(source)),
    }
}

/// A grid with what is known about its runs.
struct Sweep<'a> {
    folder: &'a Path,
    grid: Grid,
    launcher: Launcher,
    outcomes: Vec<Outcome>,
    stages: Vec<Stage>,
}

impl<'a> Sweep<'a> {
    /// Looks at all folders, so that one with another run in it is found before anything begins.
    fn look_at(folder: &'a Path, grid: Grid, launcher: Launcher) -> Result<Self> {
        if folder.is_dir() && RunFolder::check_free(folder).is_err() {
            let path = folder.to_owned();
            return Err(SweepError::IsARun { path }.into());
        }
        let mut sweep = Self {
            folder,
            outcomes: vec![Outcome::default(); grid.points.len()],
            stages: vec![Stage::Waiting; grid.points.len()],
            grid,
            launcher,
        };
        for index in 0..sweep.grid.points.len() {
            if let RunState::Complete(outcome) = sweep.launcher.state(&sweep.grid.points[index])? {
                sweep.outcomes[index] = outcome;
                sweep.stages[index] = Stage::Complete;
            }
        }
        Ok(sweep)
    }

    fn count(&self, stage: Stage) -> usize {
        self.stages.iter().filter(|other| **other == stage).count()
    }

    fn to_do(&self) -> Vec<usize> {
        let waits = |index: &usize| self.stages[*index] == Stage::Waiting;
        (0..self.stages.len()).filter(waits).collect()
    }

    /// Lists the runs with their estimated times.
    fn plan(&self) -> Result<ExitCode> {
        let to_do = self.to_do();
        let estimate = estimate(&self.grid, &to_do, &self.launcher)?;
        let mut times = estimate.runs.iter();
        let mut text = String::new();
        for (point, stage) in self.grid.points.iter().zip(&self.stages) {
            let time = match stage {
                Stage::Waiting => times.next().map_or(String::new(), |time| clock(*time)),
                stage => stage.name().to_owned(),
            };
            text.push_str(&format!("{time:>10}  {}\n", point.name));
        }
        text.push_str(&format!(
            "\n{} runs, {} complete; the others take about {}, {} side by side (without kNN and linear probe)\n",
            self.stages.len(),
            self.count(Stage::Complete),
            clock(estimate.total),
            self.grid.jobs,
        ));
        super::print(&text)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Does what is to do, with the table up to date after every run.
    fn go_on(&mut self, interrupt: &Interrupt) -> Result<()> {
        let mut progress = Progress::on_stderr();
        let to_do = self.to_do();
        progress.say(&format!(
            "sweep of {} runs in {}: {} complete, up to {} side by side",
            self.stages.len(),
            self.folder.display(),
            self.count(Stage::Complete),
            self.grid.jobs,
        ));
        let (grid, launcher) = (self.grid.clone(), &self.launcher);
        let memory = Machine::detect().memory_bytes;
        let runs = SideBySide::new(&grid, launcher, to_do.iter().copied(), memory);
        let started = Instant::now();
        let (outcomes, stages, folder) = (&mut self.outcomes, &mut self.stages, self.folder);
        write_table(folder, &grid, outcomes, stages)?;
        let mut ended = 0;
        let mut shown = Instant::now();
        runs.run(interrupt, &mut |event| {
            match event {
                Event::Started(index) => {
                    stages[index] = Stage::Running;
                    write_table(folder, &grid, outcomes, stages)?;
                }
                Event::Finished(finished) => {
                    ended += 1;
                    let point = &grid.points[finished.index];
                    let outcome = Outcome::read(&launcher.folder(point));
                    stages[finished.index] = stage_after(finished);
                    progress.clear();
                    progress.say(&finished_line(&point.name, finished, &outcome));
                    outcomes[finished.index] = outcome;
                    write_table(folder, &grid, outcomes, stages)?;
                }
                Event::Waiting(running, _) if shown.elapsed() >= Duration::from_secs(1) => {
                    shown = Instant::now();
                    let (line, share) = standing(running, ended, to_do.len(), started.elapsed());
                    progress.update_task(&line, Some(share));
                }
                Event::Waiting(..) => (),
            }
            Ok(())
        })?;
        progress.clear();
        Ok(())
    }

    /// The last words: the table, and what has gone wrong.
    fn finish(&mut self, interrupt: &Interrupt) -> Result<ExitCode> {
        for index in 0..self.stages.len() {
            if self.stages[index] != Stage::Running {
                continue;
            }
            // One that was asked to stop may have come to its end first.
            self.stages[index] = match self.launcher.state(&self.grid.points[index])? {
                RunState::Complete(outcome) => {
                    self.outcomes[index] = outcome;
                    Stage::Complete
                }
                _ => Stage::Stopped,
            };
        }
        write_table(self.folder, &self.grid, &self.outcomes, &self.stages)?;
        super::print(&format!(
            "{}\ntable: {}\n",
            summary(&self.grid, &self.outcomes),
            self.folder.join("table.csv").display()
        ))?;
        if interrupt.is_requested() {
            eprintln!(
                "stopped with {} of {} runs complete; the same command goes on",
                self.count(Stage::Complete),
                self.stages.len()
            );
            return Ok(ExitCode::from(EXIT_STATUS as u8));
        }
        let failed = self.count(Stage::Failed);
        anyhow::ensure!(
            failed == 0,
            "{failed} of {} runs failed; {} says why, and the same command tries them again",
            self.stages.len(),
            self.folder.join("logs").display()
        );
        Ok(ExitCode::SUCCESS)
    }
}

fn stage_after(finished: &Finished) -> Stage {
    match finished.status.code() {
        Some(0) => Stage::Complete,
        Some(EXIT_STATUS) => Stage::Stopped,
        _ => Stage::Failed,
    }
}

fn finished_line(name: &str, finished: &Finished, outcome: &Outcome) -> String {
    let time = clock(finished.elapsed);
    if stage_after(finished) == Stage::Failed {
        return format!("failed    {name}, see {}", finished.log.display());
    }
    let percent = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    format!(
        "{time:>8}  {name}: kNN {} %, linear {} %",
        percent(outcome.knn_top1),
        percent(outcome.linear_top1)
    )
}

/// Where the sweep stands, and the share of it that is done.
fn standing(running: &[Running], ended: usize, all: usize, elapsed: Duration) -> (String, f64) {
    let shares: f64 = running.iter().map(Running::share_done).sum();
    let share = (ended as f64 + shares) / all.max(1) as f64;
    let remaining = if share > 0.0 {
        format!(", {} left", clock(elapsed.mul_f64((1.0 - share) / share)))
    } else {
        String::new()
    };
    let line = format!(
        "sweep: {ended} of {all} runs, {} under way{remaining}",
        running.len()
    );
    (line, share)
}
