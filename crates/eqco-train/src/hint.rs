//! What the user can do about an error.

use eqco_data::DataError;
use eqco_eval::EvalError;
use eqco_models::error::ModelError;
use eqco_models::group::GroupError;

use crate::config::ConfigError;
use crate::ranks::RanksError;
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
        let ranks = || cause.downcast_ref().map(RanksError::hint);
        let group = || group_error(cause).map(GroupError::hint);
        config
            .or_else(data)
            .or_else(folder)
            .or_else(eval)
            .or_else(sweep)
            .or_else(|| ranks().or_else(group).map(str::to_owned))
    })
}

/// The error between processes, on its own or as that of a step.
fn group_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a GroupError> {
    match cause.downcast_ref() {
        Some(ModelError::Group(error)) => Some(error),
        _ => cause.downcast_ref(),
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
