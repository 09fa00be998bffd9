//! The lines of the table: what is trained, in which arithmetic, by which kernels, on how many threads.

use std::fmt;

use clap::ValueEnum;

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// ResNet-18, CIFAR stem, 32x32 images, batch 64
    #[value(name = "resnet18")]
    Resnet18,
    /// The same with 16 instead of 64 channels in its first stage
    #[value(name = "resnet18-w16")]
    Resnet18W16,
    /// ResNet-50, ImageNet stem, 224x224 images, batch 8
    #[value(name = "resnet50")]
    Resnet50,
    /// Whole SiMo step with two augmented views, ResNet-18, 32x32 images, batch 64
    #[value(name = "simo")]
    Simo,
    /// Whole MoCo v2 step with 4,096 negatives beside the same with 16, ResNet-18 of width 16, batch 256
    #[value(name = "negatives")]
    Negatives,
}

impl Work {
    /// As it is written on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resnet18 => "resnet18",
            Self::Resnet18W16 => "resnet18-w16",
            Self::Resnet50 => "resnet50",
            Self::Simo => "simo",
            Self::Negatives => "negatives",
        }
    }

    /// Images a step.
    pub fn batch(self) -> usize {
        match self {
            Self::Resnet18 | Self::Resnet18W16 | Self::Simo => 64,
            Self::Resnet50 => 8,
            Self::Negatives => 256,
        }
    }

    /// Steps a run: enough for a few seconds.
    pub fn steps(self) -> usize {
        match self {
            Self::Resnet18 => 5,
            Self::Resnet18W16 => 25,
            Self::Resnet50 | Self::Simo => 3,
            Self::Negatives => 7,
        }
    }
}

/// Number format of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32-bit floating point
    F32,
    /// bfloat16 activations over f32 weights
    Bf16,
}

impl Precision {
    /// As it is written on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// Our kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// Rust alone
    Portable,
    /// Convolutions of the oneDNN library
    Onednn,
}

impl Family {
    /// As it is written on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Onednn => "onednn",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub work: Work,
    pub precision: Precision,
    pub family: Family,
    pub threads: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {} {}, {} threads",
            self.work.name(),
            self.precision.name(),
            self.family.name(),
            self.threads
        )
    }
}

/// What was asked for; what is empty takes its default.
#[derive(Debug, Default)]
pub struct Choice {
    pub works: Vec<Work>,
    pub threads: Vec<usize>,
    pub precisions: Vec<Precision>,
    pub families: Vec<Family>,
}

impl Choice {
    /// Every combination.
    pub fn cases(mut self, cores: usize) -> Vec<Case> {
        fill(&mut self.works, Work::value_variants());
        fill(&mut self.threads, &[1, cores]);
        fill(&mut self.precisions, Precision::value_variants());
        fill(&mut self.families, &[Family::Portable]);
        self.threads.dedup();
        let mut cases = Vec::new();
        for work in self.works {
            for &precision in &self.precisions {
                for &threads in &self.threads {
                    cases.extend(self.families.iter().map(|&family| Case {
                        work,
                        precision,
                        family,
                        threads,
                    }));
                }
            }
        }
        cases
    }
}

fn fill<T: Copy>(chosen: &mut Vec<T>, default: &[T]) {
    if chosen.is_empty() {
        chosen.extend_from_slice(default);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_every_combination_of_what_was_asked_for() {
        let all = Work::value_variants().len();
        assert_eq!(Choice::default().cases(2).len(), all * 2 * 2);
        let choice = Choice {
            precisions: vec![Precision::Bf16],
            families: vec![Family::Portable, Family::Onednn],
            works: vec![Work::Resnet18],
            threads: vec![],
        };
        assert_eq!(choice.cases(1).len(), 2);
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        let of = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().unwrap().get_name().to_owned()
        };
        for work in Work::value_variants() {
            assert_eq!(of(&|| work.to_possible_value()), work.name());
        }
        for precision in Precision::value_variants() {
            assert_eq!(of(&|| precision.to_possible_value()), precision.name());
        }
        for family in Family::value_variants() {
            assert_eq!(of(&|| family.to_possible_value()), family.name());
        }
    }
}
