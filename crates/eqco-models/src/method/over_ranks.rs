//! A batch over the processes of a group: a step is that of one process whose micro-batches are the ranks' parts.

use std::sync::Arc;

use super::{Contrast, MethodConfig, MethodName};
use crate::error::ModelError;
use crate::group::{ProcessGroup, running_statistics};
use crate::params::ParameterSet;
use crate::profile::{Phase, Profiler, Work, bytes_of};
use crate::tape::Gradients;

/// What one rank brings into a step beside its images.
pub(super) struct Part {
    pub(super) config: MethodConfig,
    pub(super) group: Arc<ProcessGroup>,
    pub(super) profiler: Profiler,
    /// Parameters and running statistics of the query encoder, and of the momentum encoder where there is one.
    pub(super) sets: Vec<ParameterSet>,
}

impl Part {
    /// Runs `contrast` on the `images` of this rank, which gives the gradients of the mean over them, and leaves those of
    /// the mean over all ranks in `gradients`.
    pub(super) fn step(
        &self,
        gradients: &mut Gradients,
        images: usize,
        contrast: impl FnOnce(&mut Gradients) -> Result<Contrast, ModelError>,
    ) -> Result<Contrast, ModelError> {
        if self.group.size() == 1 {
            return contrast(gradients);
        }
        for set in &self.sets {
            running_statistics::begin_step(&self.group, set)?;
        }
        let found = contrast(gradients)?;
        let reached = gradients.reached();
        let work = || Work::new("average over ranks", Phase::Other).moving(bytes_of(&reached));
        let _span = self.profiler.span(work);
        self.group.average(&reached)?;
        let updates = self.config.updates_a_step(images);
        for set in &self.sets {
            running_statistics::end_step(&self.group, set, updates)?;
        }
        Ok(found)
    }
}

impl MethodConfig {
    /// Checks that a batch of `batch_size` images can be shared out among `ranks` processes.
    ///
    /// # Errors
    /// Names the nearest batch that can.
    pub fn validate_ranks(&self, batch_size: usize, ranks: usize) -> Result<(), ModelError> {
        // Groups divide micro-batches.
        let part = self.micro_batch.max(self.batch_norm_group).max(1);
        let unit = part * ranks.max(1);
        if batch_size.is_multiple_of(unit) && batch_size >= 2 * ranks {
            return Ok(());
        }
        let least = if part == 1 { 2 * unit } else { unit };
        let nearest = ((batch_size + unit / 2) / unit * unit).max(least);
        let parts = match part {
            1 => "at least 2 images".to_owned(),
            _ => {
                format!("a multiple of {part} images (method.micro_batch, method.batch_norm_group)")
            }
        };
        let problem = format!(
            "batch_size: {ranks} ranks cannot share out a batch of {batch_size}, for each needs {parts}, as many as the \
             others; the nearest that they can share is {nearest}"
        );
        Err(ModelError::Conflict { problem })
    }

    /// How often running statistics move in a step of `images` images.
    fn updates_a_step(&self, images: usize) -> usize {
        let views = match self.name {
            // Both views go through the encoder together.
            MethodName::Simclr => 2 * images,
            MethodName::Simo | MethodName::MocoV2 => images,
        };
        match (self.batch_norm_group, self.micro_batch) {
            (0, 0) => 1,
            (0, micro_batch) => images / micro_batch,
            (group, _) => views / group,
        }
    }
}

#[cfg(test)]
mod tests {
    use eqco_core::DrawKind;

    use super::*;

    fn config(batch_norm_group: usize, micro_batch: usize) -> MethodConfig {
        MethodConfig {
            name: MethodName::Simo,
            negative_count: 1,
            draw: DrawKind::PerQuery,
            ema_coefficient: 0.9,
            batch_norm_group,
            micro_batch,
        }
    }

    #[test]
    fn batches_that_cannot_be_shared_out_are_refused_with_the_nearest_that_can() {
        for (group, micro, batch, ranks, nearest) in [
            (0, 0, 256, 3, 255),
            (0, 0, 257, 3, 258),
            (0, 0, 4, 4, 8),
            (0, 0, 1, 1, 2),
            (32, 0, 256, 3, 288),
            (4, 8, 24, 2, 32),
            (0, 16, 16, 4, 64),
        ] {
            let config = config(group, micro);
            let told = config.validate_ranks(batch, ranks).unwrap_err().to_string();
            let expected = format!("the nearest that they can share is {nearest}");
            assert!(told.ends_with(&expected), "{told}");
            config.validate_ranks(nearest, ranks).unwrap();
        }
        config(0, 0).validate_ranks(256, 8).unwrap();
    }

    #[test]
    fn running_statistics_move_once_a_group() {
        let updates = |name, group, micro| {
            let config = MethodConfig {
                name,
                ..config(group, micro)
            };
            config.updates_a_step(24)
        };
        use MethodName::*;
        assert_eq!([updates(Simo, 0, 0), updates(Simclr, 0, 0)], [1, 1]);
        assert_eq!([updates(Simo, 0, 8), updates(Simclr, 0, 8)], [3, 3]);
        assert_eq!([updates(MocoV2, 4, 8), updates(Simclr, 4, 8)], [6, 12]);
    }
}
