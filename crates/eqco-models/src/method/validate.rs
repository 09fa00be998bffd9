//! What a batch can supply: negatives, batch-norm groups, parts. What it cannot is refused with the nearest that it can.

use super::{MethodConfig, MethodName};
use crate::error::{ModelError, check_range};

/// Images of a batch are numbered in 32 bits.
const MOST_IMAGES: usize = u32::MAX as usize;

impl MethodConfig {
    /// Checks ranges and that the batch can supply the negatives and the groups.
    ///
    /// # Errors
    /// Names what was expected and found, and the nearest value that can be.
    pub fn validate(&self, batch_size: usize) -> Result<(), ModelError> {
        let coefficient = self.ema_coefficient;
        check_range(
            "method.ema_coefficient",
            "in 0 to 1",
            coefficient,
            (0.0..=1.0).contains(&coefficient),
        )?;
        check_range(
            "batch_size",
            "at least 2 and below 2^32",
            batch_size as f64,
            (2..=MOST_IMAGES).contains(&batch_size),
        )?;
        self.validate_groups(batch_size)?;
        self.validate_parts(batch_size)?;
        self.validate_negatives(batch_size)
    }

    /// A single image has no batch statistics: where a map has one pixel, it would be its own mean.
    fn validate_groups(&self, batch_size: usize) -> Result<(), ModelError> {
        let group = self.batch_norm_group;
        if group == 0 || (group >= 2 && batch_size.is_multiple_of(group)) {
            return Ok(());
        }
        refuse(format!(
            "method.batch_norm_group: groups of {group} images do not divide a batch of {batch_size} into groups of 2 or more; \
             the nearest that do have {}, and 0 takes the whole batch",
            nearest_divisor(batch_size, group, 2)
        ))
    }

    fn validate_parts(&self, batch_size: usize) -> Result<(), ModelError> {
        let (micro, group) = (self.micro_batch, self.batch_norm_group);
        // Groups divide the batch: some part is whole groups.
        let unit = group.max(1);
        let nearest = nearest_divisor(
            batch_size / unit,
            micro.div_ceil(unit),
            2usize.div_ceil(unit),
        ) * unit;
        if micro > 0 && !(batch_size.is_multiple_of(micro) && micro >= 2) {
            return refuse(format!(
                "method.micro_batch: parts of {micro} images do not divide a batch of {batch_size} into parts of 2 or more; \
                 the nearest that do have {nearest}, and 0 takes the whole batch"
            ));
        }
        if micro > 0 && group > 0 && !micro.is_multiple_of(group) {
            return refuse(format!(
                "method.micro_batch: batch-norm groups of {group} images do not divide parts of {micro}; the nearest parts of a \
                 batch of {batch_size} that they divide have {nearest}, and method.batch_norm_group = 0 makes a group of every \
                 part"
            ));
        }
        Ok(())
    }

    fn validate_negatives(&self, batch_size: usize) -> Result<(), ModelError> {
        let possible = match self.name {
            MethodName::Simo => 1..=batch_size - 1,
            MethodName::MocoV2 => 1..=usize::MAX,
            MethodName::Simclr => 0..=0,
        };
        if possible.contains(&self.negative_count) {
            return Ok(());
        }
        refuse(format!(
            "method.negative_count: {} cannot have {} negatives a query with a batch of {batch_size}; \
             the nearest that it can have is {}",
            self.name.title(),
            self.negative_count,
            self.negative_count
                .clamp(*possible.start(), *possible.end())
        ))
    }
}

fn refuse(problem: String) -> Result<(), ModelError> {
    Err(ModelError::Conflict { problem })
}

/// The divisor of `number`, from `least` on, that is nearest to `wanted`; the smaller of two.
fn nearest_divisor(number: usize, wanted: usize, least: usize) -> usize {
    let small = (1..).take_while(|divisor| divisor * divisor <= number);
    let divisors = small.filter(|divisor| number.is_multiple_of(*divisor));
    let both = divisors.flat_map(|divisor| [divisor, number / divisor]);
    let possible = both.filter(|divisor| *divisor >= least);
    possible
        .min_by_key(|divisor| (divisor.abs_diff(wanted), *divisor))
        .unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use eqco_core::DrawKind;

    use super::*;

    fn config(name: MethodName, negative_count: usize, group: usize, micro: usize) -> MethodConfig {
        MethodConfig {
            name,
            negative_count,
            draw: DrawKind::PerQuery,
            ema_coefficient: 0.9,
            batch_norm_group: group,
            micro_batch: micro,
        }
    }

    fn told(config: MethodConfig, batch_size: usize) -> String {
        config.validate(batch_size).unwrap_err().to_string()
    }

    #[test]
    fn negatives_that_cannot_be_are_refused_with_the_nearest_that_can() {
        use MethodName::*;
        for (name, count, batch, nearest) in [
            (Simo, 0, 8, 1),
            (Simo, 8, 8, 7),
            (Simo, usize::MAX, 2, 1),
            (MocoV2, 0, 8, 1),
            (Simclr, 5, 8, 0),
        ] {
            let told = told(config(name, count, 0, 0), batch);
            assert_eq!(
                told,
                format!(
                    "method.negative_count: {} cannot have {count} negatives a query with a batch of {batch}; the nearest that \
                     it can have is {nearest}",
                    name.title()
                )
            );
            config(name, nearest, 0, 0).validate(batch).unwrap();
        }
        for batch in [0, 1, usize::MAX] {
            assert!(
                told(config(Simo, 1, 0, 0), batch)
                    .starts_with("batch_size must be at least 2 and below 2^32, got ")
            );
        }
    }

    #[test]
    fn groups_and_parts_that_cannot_be_are_refused_with_the_nearest_that_can() {
        use MethodName::MocoV2;
        for (group, batch, nearest) in [
            (1, 8, 2),
            (3, 8, 2),
            (7, 8, 8),
            (99, 8, 8),
            (5, 7, 7),
            (33, 256, 32),
        ] {
            let told = told(config(MocoV2, 4, group, 0), batch);
            let expected = format!(
                "method.batch_norm_group: groups of {group} images do not divide a batch of {batch} into groups of 2 or more; \
                 the nearest that do have {nearest}, and 0 takes the whole batch"
            );
            assert_eq!(told, expected);
            config(MocoV2, 4, nearest, 0).validate(batch).unwrap();
        }
        for (micro, group, batch, nearest) in [
            (1, 0, 8, 2),
            (3, 0, 8, 2),
            (9, 0, 8, 8),
            (5, 4, 24, 8),
            (100, 8, 64, 64),
        ] {
            let told = told(config(MocoV2, 4, group, micro), batch);
            assert!(
                told.starts_with(&format!(
                    "method.micro_batch: parts of {micro} images do not divide a batch of {batch}"
                )) && told.ends_with(&format!(
                    "the nearest that do have {nearest}, and 0 takes the whole batch"
                )),
                "{told}"
            );
            config(MocoV2, 4, group, nearest).validate(batch).unwrap();
        }
        let told = told(config(MocoV2, 4, 8, 4), 64);
        assert!(
            told.contains("groups of 8 images do not divide parts of 4; the nearest parts of a batch of 64 that they divide have 8"),
            "{told}"
        );
    }
}
