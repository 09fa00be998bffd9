//! One run as a process of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::state::move_aside;
use super::{Outcome, Point, RunState, SweepError};
use crate::cli::{ConfigArgs, PretrainArgs};
use crate::config::Setting;

/// Starts runs below one folder.
#[derive(Debug)]
pub struct Launcher {
    program: PathBuf,
    sweep: PathBuf,
    preset: Option<String>,
    file: Option<PathBuf>,
}

/// A run under way.
#[derive(Debug)]
pub struct Running {
    /// Its place in the grid.
    pub index: usize,
    child: Child,
    folder: PathBuf,
    log: PathBuf,
    started: Instant,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its place in the grid.
    pub index: usize,
    /// How the process ended.
    pub status: ExitStatus,
    /// Its time with evaluation.
    pub elapsed: Duration,
    /// Where it said why, if it failed.
    pub log: PathBuf,
}

impl Launcher {
    /// Runs are started with `program`, this very program, in folders below `sweep`, from the preset and file of
    /// `arguments`.
    pub fn new(program: PathBuf, sweep: &Path, arguments: &ConfigArgs) -> Self {
        Self {
            program,
            sweep: sweep.to_owned(),
            preset: arguments.preset.clone(),
            file: arguments.config.clone(),
        }
    }

    /// The folder of a run.
    pub fn folder(&self, point: &Point) -> PathBuf {
        self.sweep.join(&point.name)
    }

    /// How far a run has got.
    ///
    /// # Errors
    /// Those of [`RunState::of`].
    pub fn state(&self, point: &Point) -> Result<RunState, SweepError> {
        RunState::of(point, &self.folder(point))
    }

    /// Starts the run `point`. What an interrupted run has left in its folder is moved aside.
    ///
    /// # Errors
    /// [`SweepError::File`].
    pub fn start(&self, index: usize, point: &Point) -> Result<Running, SweepError> {
        if self.state(point)? == RunState::Interrupted {
            move_aside(&self.sweep, &point.name)?;
        }
        let logs = self.sweep.join("logs");
        fs::create_dir_all(&logs).map_err(SweepError::file(&logs))?;
        let log = logs.join(format!("{}.log", point.name));
        let file = File::create(&log).map_err(SweepError::file(&log))?;
        let second = file.try_clone().map_err(SweepError::file(&log))?;

        let mut command = Command::new(&self.program);
        command
            .args(self.arguments(point))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second);
        end_with_this_process(&mut command);
        let child = command.spawn().map_err(SweepError::file(&self.program))?;
        Ok(Running {
            index,
            child,
            folder: self.folder(point),
            log,
            started: Instant::now(),
        })
    }

    /// What `eqco-train pretrain` is to be told to do the run `point`.
    pub fn pretrain_arguments(&self, point: &Point) -> PretrainArgs {
        // JSON values other than null, which no setting is, are TOML values too.
        let set = |setting: &Setting| format!("{}={}", setting.key, setting.value);
        PretrainArgs {
            config: ConfigArgs {
                preset: self.preset.clone(),
                config: self.file.clone(),
                set: point.settings.iter().map(set).collect(),
                ..ConfigArgs::default()
            },
            out: Some(self.folder(point)),
            ..PretrainArgs::default()
        }
    }

    fn arguments(&self, point: &Point) -> Vec<OsString> {
        let PretrainArgs { config, out, .. } = self.pretrain_arguments(point);
        let mut arguments = vec![OsString::from("pretrain")];
        let mut add = |flag: &str, value: OsString| arguments.extend([OsString::from(flag), value]);
        if let Some(preset) = config.preset {
            add("--preset", preset.into());
        }
        if let Some(file) = config.config {
            add("--config", file.into());
        }
        config
            .set
            .into_iter()
            .for_each(|set| add("--set", set.into()));
        if let Some(out) = out {
            add("--out", out.into());
        }
        arguments
    }
}

impl Running {
    /// Whether the run has done its first step, so that its memory is about as large as it will be.
    pub fn is_under_way(&self) -> bool {
        Outcome::standing(&self.folder).is_some()
    }

    /// The largest amount of memory in bytes that the process has had so far, where the system tells.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// Share of its steps done, 0 to 1.
    pub fn share_done(&self) -> f64 {
        let share = |(steps, total): (u64, u64)| steps as f64 / total.max(1) as f64;
        Outcome::standing(&self.folder).map_or(0.0, share)
    }

    /// Asks the run to finish its step, write a checkpoint and end.
    pub fn ask_to_stop(&self) {
        #[cfg(unix)]
        // SAFETY: kill takes any numbers; the child has not been waited for, so that its number is still its own.
        unsafe {
            libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM);
        }
    }

    /// The end of the run, if it has come.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn ended(&mut self) -> io::Result<Option<Finished>> {
        let status = self.child.try_wait()?;
        Ok(status.map(|status| Finished {
            index: self.index,
            status,
            elapsed: self.started.elapsed(),
            log: self.log.clone(),
        }))
    }
}

/// Asks a run to stop when the sweep is killed, so that none goes on unseen in a folder that the next sweep will want.
#[cfg(target_os = "linux")]
fn end_with_this_process(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only the one system call is made.
    unsafe {
        command.pre_exec(
            || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with_this_process(_command: &mut Command) {}
