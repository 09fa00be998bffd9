//! What the user can do about an error.

use std::io;

use eqco_data::DataError;
use eqco_eval::EvalError;
use eqco_models::error::ModelError;
use eqco_models::group::GroupError;

use crate::config::ConfigError;
use crate::nonfinite::Stopped;
use crate::ranks::RanksError;
use crate::resume::ResumeError;
use crate::run_folder::RunFolderError;
use crate::sweep::SweepError;

/// The hint of the first error in the chain that has one.
pub fn of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let config = cause.downcast_ref().and_then(ConfigError::hint);
        let data = || cause.downcast_ref().and_then(DataError::hint);
        let folder = || cause.downcast_ref().map(RunFolderError::hint);
        let eval = || cause.downcast_ref().and_then(EvalError::hint);
        let sweep = || cause.downcast_ref().and_then(SweepError::hint);
        let stopped = || cause.downcast_ref().and_then(Stopped::hint);
        let group = || cause.downcast_ref().map(GroupError::hint);
        let ranks = || cause.downcast_ref().map(RanksError::hint);
        let resume = || cause.downcast_ref().map(ResumeError::hint);
        let model = || cause.downcast_ref().and_then(model_error);
        config
            .or_else(data)
            .or_else(folder)
            .or_else(eval)
            .or_else(sweep)
            .or_else(stopped)
            .or_else(|| ranks().or_else(resume).map(str::to_owned))
            .or_else(|| model().or_else(group).map(str::to_owned))
    })
}

/// What to do about an error of the model or its files, where the error itself does not say it.
fn model_error(error: &ModelError) -> Option<&'static str> {
    match error {
        ModelError::Group(error) => Some(error.hint()),
        ModelError::CheckpointIo { source, .. } => Some(match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space, then `--resume FOLDER` goes on; checkpoints already written are whole"
            }
            io::ErrorKind::FileTooLarge => {
                "the system limits the size of files (`ulimit -f`): raise the limit, then `--resume FOLDER` goes on"
            }
            _ => {
                "see to it that the folder can be read and written, then `--resume FOLDER` goes on"
            }
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::config::Preset;

    #[test]
    fn hints_are_found_behind_context_and_absent_where_there_is_none() {
        let config = Preset::named("dem")
            .map(|_| ())
            .context("while starting")
            .unwrap_err();
        assert!(of(&config).unwrap().contains("`demo`"));
        let data = eqco_data::open("cifar-10", eqco_data::Split::Train).map(|_| ());
        assert!(
            of(&data.context("while opening").unwrap_err())
                .unwrap()
                .contains("cifar10")
        );
        assert_eq!(of(&anyhow::anyhow!("something else")), None);
    }
}
