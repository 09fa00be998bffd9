//! The program as a user's shell would start it, whatever started the tests.

use std::path::Path;
use std::process::{Command, Stdio};

/// All that an environment may say about ranks.
const OF_RANKS: [&str; 12] = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_USE_AGENT_STORE",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_LOCALID",
    "CUDA_VISIBLE_DEVICES",
    "EQCO_GROUP_TIMEOUT",
];

/// The program in `folder`.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eqco-train"));
    command
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .env_remove("CARGO_MANIFEST_DIR")
        .stdin(Stdio::null());
    for variable in OF_RANKS {
        command.env_remove(variable);
    }
    command
}
