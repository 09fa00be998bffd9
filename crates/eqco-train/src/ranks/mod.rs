//! Which of several processes this is, from the environment that torchrun or Slurm's srun gives each of them.

mod agreement;
mod error;
mod slurm;

use std::time::Duration;

use eqco_models::DeviceName;
use eqco_models::group::Rendezvous;

pub use agreement::check_agreement;
pub use error::RanksError;

/// How long a process waits for the others, and how long another may be silent: while rank 0 opens and evaluates images.
const TIMEOUT_SECONDS: u64 = 1800;
/// Sets that time, in seconds.
const TIMEOUT: &str = "EQCO_GROUP_TIMEOUT";

/// This process among all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// Where all meet; `None` for a process on its own.
    pub rendezvous: Option<Rendezvous>,
    /// This process among those of its machine, from 0.
    pub local_rank: usize,
    /// Processes of this machine that share its cores, where the launcher tells and has not shared them out itself.
    pub local_size: usize,
    /// Whether the launcher lets this process see a single GPU, which is its own.
    sees_one_gpu: bool,
}

impl Ranks {
    /// One process on its own.
    pub fn alone() -> Self {
        Self {
            rendezvous: None,
            local_rank: 0,
            local_size: 1,
            sees_one_gpu: false,
        }
    }

    /// Reads the environment of this process.
    ///
    /// # Errors
    /// When variables are missing beside others, or are no numbers that fit each other.
    pub fn from_environment() -> Result<Self, RanksError> {
        Self::of(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// Reads an environment.
    ///
    /// torchrun's RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT come before srun's SLURM_PROCID, SLURM_NTASKS and
    /// SLURM_LOCALID; without any of them the process is on its own, and so it is as the only one of its kind. A shell
    /// inside of an allocation has no SLURM_PROCID, and is no task.
    ///
    /// # Errors
    /// Those of [`Ranks::from_environment`].
    pub fn of(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, RanksError> {
        let environment = Environment(&lookup);
        let is_there = |name: &&str| lookup(name).is_some();
        let torchrun = ["RANK", "WORLD_SIZE", "LOCAL_RANK"];
        let mut ranks = if let Some(given) = torchrun.iter().find(|name| is_there(name)) {
            environment.torchrun(given)?
        } else if lookup("SLURM_PROCID").is_some() {
            environment.slurm()?
        } else {
            Self::alone()
        };
        let visible = lookup("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        ranks.sees_one_gpu = !visible.is_empty() && !visible.contains(',');
        Ok(ranks)
    }

    /// The number of processes, at least 1.
    pub fn size(&self) -> usize {
        self.rendezvous.as_ref().map_or(1, |all| all.size)
    }

    /// This process, from 0.
    pub fn rank(&self) -> usize {
        self.rendezvous.as_ref().map_or(0, |all| all.rank)
    }

    /// Whether this process writes, shows and evaluates.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The device of this process, where `first` is that of the first one of its machine: GPUs in the order of processes,
    /// unless this process sees but one.
    pub fn device(&self, first: DeviceName) -> DeviceName {
        match first {
            DeviceName::Cuda(ordinal) if !self.sees_one_gpu => {
                DeviceName::Cuda(ordinal + self.local_rank)
            }
            _ => first,
        }
    }
}

/// Variables by name.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    /// A variable that has to be there because `given` is.
    fn text(&self, name: &'static str, given: &'static str) -> Result<String, RanksError> {
        (self.0)(name).ok_or(RanksError::Missing { name, given })
    }

    fn number(&self, name: &'static str, given: &'static str) -> Result<usize, RanksError> {
        let text = self.text(name, given)?;
        parsed(name, &text)
    }

    fn torchrun(&self, given: &'static str) -> Result<Ranks, RanksError> {
        let rank = self.number("RANK", given)?;
        let size = self.number("WORLD_SIZE", given)?;
        let local_rank = self.number("LOCAL_RANK", given)?;
        let host = self.text("MASTER_ADDR", given)?;
        let port = port("MASTER_PORT", &self.text("MASTER_PORT", given)?)?;
        let local_size = match (self.0)("LOCAL_WORLD_SIZE") {
            Some(text) => parsed("LOCAL_WORLD_SIZE", &text)?,
            None => 1,
        };
        // torchrun listens on that port itself then.
        let is_taken =
            (self.0)("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
        let port = if is_taken { neighbour(port) } else { port };
        let variables = ("RANK", "WORLD_SIZE");
        let rendezvous = self.rendezvous(variables, (rank, size), host, port)?;
        Ok(Ranks {
            rendezvous,
            local_rank,
            local_size: local_size.max(1),
            ..Ranks::alone()
        })
    }

    fn slurm(&self) -> Result<Ranks, RanksError> {
        let given = "SLURM_PROCID";
        let rank = self.number(given, given)?;
        let size = self.number("SLURM_NTASKS", given)?;
        let local_rank = self.number("SLURM_LOCALID", given)?;
        if size == 1 {
            return Ok(Ranks::alone());
        }
        let host = match (self.0)("MASTER_ADDR") {
            Some(host) => host,
            None => slurm::first_host(self.0)?,
        };
        let port = match (self.0)("MASTER_PORT") {
            Some(text) => port("MASTER_PORT", &text)?,
            None => slurm::port_of_job(self.number("SLURM_JOB_ID", given)?),
        };
        let variables = ("SLURM_PROCID", "SLURM_NTASKS");
        let rendezvous = self.rendezvous(variables, (rank, size), host, port)?;
        Ok(Ranks {
            rendezvous,
            local_rank,
            ..Ranks::alone()
        })
    }

    fn rendezvous(
        &self,
        variables: (&'static str, &'static str),
        (rank, size): (usize, usize),
        host: String,
        port: u16,
    ) -> Result<Option<Rendezvous>, RanksError> {
        if rank >= size {
            let expected = format!("a number below {}, which is {size}", variables.1);
            return Err(RanksError::invalid(
                variables.0,
                expected,
                &rank.to_string(),
            ));
        }
        let seconds = match (self.0)(TIMEOUT) {
            Some(text) => match text.parse::<u64>() {
                Ok(seconds) if seconds > 0 => seconds,
                _ => {
                    return Err(RanksError::invalid(
                        TIMEOUT,
                        "whole seconds, at least 1",
                        &text,
                    ));
                }
            },
            None => TIMEOUT_SECONDS,
        };
        let patience = Duration::from_secs(seconds);
        Ok((size > 1).then_some(Rendezvous {
            rank,
            size,
            host,
            port,
            wait: patience,
            patience,
        }))
    }
}

fn parsed(name: &'static str, text: &str) -> Result<usize, RanksError> {
    text.parse()
        .map_err(|_| RanksError::invalid(name, "a number from 0 on", text))
}

fn port(name: &'static str, text: &str) -> Result<u16, RanksError> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(RanksError::invalid(name, "a port from 1 to 65535", text)),
    }
}

/// The port beside another one.
fn neighbour(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(port - 1)
}

#[cfg(test)]
mod tests;
