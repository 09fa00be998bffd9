//! What can go wrong between processes that train together.

use std::io;
use std::time::Duration;

/// Every way in which a group of processes fails to come together, or comes apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Rank and size do not go together.
    #[error("rank {rank} of {size}: expected at least one process, and a rank below their number")]
    NoSuchRank {
        /// The rank that was given.
        rank: usize,
        /// The number of processes that was given.
        size: usize,
    },
    /// Rank 0 cannot listen where the others will look for it.
    #[error("rank 0 cannot listen on port {port}: {source}")]
    Bind {
        /// The port.
        port: u16,
        /// The system's reason.
        source: io::Error,
    },
    /// Nobody answers at the address of rank 0.
    #[error("rank 0 does not answer at {address} within {} s: {problem}", waited.as_secs_f64())]
    Unreachable {
        /// Host and port.
        address: String,
        /// How long it was tried.
        waited: Duration,
        /// What the last try said.
        problem: String,
    },
    /// Some processes did not come.
    #[error("of {size} processes, rank {} did not come within {} s", listed(missing), waited.as_secs_f64())]
    Missing {
        /// Their ranks.
        missing: Vec<usize>,
        /// How many were expected, rank 0 included.
        size: usize,
        /// How long rank 0 waited.
        waited: Duration,
    },
    /// A process that does not fit came.
    #[error("a process came as rank {rank} of {size}, {problem}")]
    Misfit {
        /// The rank that it gave.
        rank: u32,
        /// The number of processes that it gave.
        size: u32,
        /// What does not fit.
        problem: String,
    },
    /// Another process has ended and said why.
    #[error("rank {rank} has ended: {reason}")]
    Left {
        /// Its rank.
        rank: usize,
        /// Its last words.
        reason: String,
    },
    /// The connection to another process is gone: it was killed, or its machine or the network failed.
    #[error("the connection to rank {rank} is lost: {source}")]
    Lost {
        /// Its rank.
        rank: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process is connected but says nothing.
    #[error("rank {rank} has been silent for {} s", waited.as_secs_f64())]
    Silent {
        /// Its rank.
        rank: usize,
        /// How long it was listened to.
        waited: Duration,
    },
    /// Another process is at another place of the program.
    #[error("rank {rank} is out of step: expected {expected}, found {found}")]
    OutOfStep {
        /// Its rank.
        rank: usize,
        /// The message that belongs here.
        expected: String,
        /// The message that came.
        found: String,
    },
    /// Several GPUs, and a build that cannot join them.
    #[error("this build cannot join GPUs of several processes: it has no NCCL")]
    NotBuilt,
    /// NCCL failed.
    #[error("NCCL cannot {action}: {problem}")]
    Nccl {
        /// What was tried.
        action: &'static str,
        /// What it says.
        problem: String,
    },
}

impl GroupError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoSuchRank { .. } | Self::Misfit { .. } => {
                "start all processes by one torchrun or srun, which number them; RANK and WORLD_SIZE (or SLURM_PROCID and \
                 SLURM_NTASKS) are what was read"
            }
            Self::Bind { .. } => "choose a free port with MASTER_PORT, the same for all processes",
            Self::Unreachable { .. } | Self::Missing { .. } => {
                "start all processes at about the same time; MASTER_ADDR and MASTER_PORT say where rank 0 listens, and \
                 EQCO_GROUP_TIMEOUT how many seconds are waited"
            }
            Self::Left { .. } | Self::Lost { .. } => {
                "the first error is in the output of that rank; checkpoints already written stay usable"
            }
            Self::Silent { .. } => {
                "EQCO_GROUP_TIMEOUT sets how many seconds a silence may last; that rank may hang, or be much slower than the \
                 others"
            }
            Self::OutOfStep { .. } => {
                "run the same program with the same settings and data in all processes"
            }
            Self::NotBuilt => {
                "build with `--features nccl`, or start one process alone; several processes can train on CPUs without it"
            }
            Self::Nccl { .. } => {
                "NCCL_DEBUG=INFO makes it say more; each process needs a GPU of its own"
            }
        }
    }
}

fn listed(ranks: &[usize]) -> String {
    let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
    ranks.join(", ")
}
