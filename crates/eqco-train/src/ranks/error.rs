//! What can be wrong with the variables that number processes.

/// Variables that do not say which process this is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RanksError {
    /// Some of the variables are there, and one is not.
    #[error("{name} is not set, while {given} is: they tell which of several processes this is")]
    Missing {
        /// The variable that is missing.
        name: &'static str,
        /// One that is there.
        given: &'static str,
    },
    /// A variable is out of its range.
    #[error("{name}: expected {expected}, found `{found}`")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Slurm does not tell where the first task runs.
    #[error("the machine of the first task cannot be told from {variable}, which is `{found}`")]
    NoHost {
        /// The variable that was looked at.
        variable: &'static str,
        /// What it is.
        found: String,
    },
    /// A process is about to train something else.
    #[error("rank {rank} has another {what} than rank 0")]
    Different {
        /// Its rank.
        rank: usize,
        /// What differs.
        what: &'static str,
    },
    /// A command for one process was started as several.
    #[error("`{command}` is for one process, and {size} have been started")]
    OneProcess {
        /// The command.
        command: &'static str,
        /// How many there are.
        size: usize,
    },
}

impl RanksError {
    pub(super) fn invalid(name: &'static str, expected: impl Into<String>, found: &str) -> Self {
        Self::Invalid {
            name,
            expected: expected.into(),
            found: found.to_owned(),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Invalid { .. } => {
                "torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, and srun SLURM_PROCID, SLURM_NTASKS \
                 and SLURM_LOCALID; unset them all to train in one process"
            }
            Self::NoHost { .. } => {
                "set MASTER_ADDR to the name of the first machine: \
                 MASTER_ADDR=$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | head -n 1)"
            }
            Self::Different { .. } => {
                "give all processes the same program, flags, configuration file and data; --threads is one of the flags"
            }
            Self::OneProcess { .. } => "start it without torchrun, or by srun with one task",
        }
    }
}
