//! The parts of the check. Each is run in a process of its own: an error that CUDA does not recover from, a crash or a hang ends
//! one part and no other.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use eqco_models::method::MethodName;

use super::kernels::Kernel;

/// A part that can be run on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One kind of kernel against its portable form.
    Kernel(Kernel),
    /// Training steps of a method, each from the CPU's state.
    Steps(MethodName),
    /// Curves of training from the same start.
    Curves,
    /// Kernels against the ceilings of the device.
    Speed,
    /// A workload on its own and, in turns, in PyTorch.
    Workload(Workload),
}

/// What is timed against PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// A training step of ResNet-50 with a head: forward, backward, SGD.
    ResNet50,
    /// The whole step of SiMo with ResNet-50: upload, key encoder, loss and momentum update, too.
    Simo,
    /// The loss over a queue.
    Loss,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ResNet50, Self::Simo, Self::Loss];

    /// The name in tables, on the command line, and in the script for PyTorch.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet50 => "resnet50",
            Self::Simo => "simo",
            Self::Loss => "loss",
        }
    }
}

const METHODS: [(MethodName, &str); 3] = [
    (MethodName::Simo, "simo"),
    (MethodName::MocoV2, "moco_v2"),
    (MethodName::Simclr, "simclr"),
];

impl Part {
    /// All parts in the order in which they are run: numbers before speed. Without those that time, if `is_quick`.
    pub fn all(is_quick: bool) -> Vec<Self> {
        let kernels = Kernel::ALL.into_iter().map(Self::Kernel);
        let steps = METHODS.into_iter().map(|(method, _)| Self::Steps(method));
        let timed = std::iter::once(Self::Speed).chain(Workload::ALL.map(Self::Workload));
        kernels
            .chain(steps)
            .chain([Self::Curves])
            .chain(timed.filter(|_| !is_quick))
            .collect()
    }

    /// When it is taken to hang. It is several times what is expected on 16 cores and a GPU, warm-up of PyTorch's compiler
    /// included.
    pub fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Kernel(_) | Self::Steps(_) | Self::Curves | Self::Speed => 90,
            Self::Workload(_) => 360,
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(kernel) => write!(f, "kernel/{}", kernel.name()),
            Self::Steps(method) => {
                let known = METHODS.iter().find(|(name, _)| name == method);
                write!(f, "steps/{}", known.map_or("", |(_, name)| name))
            }
            Self::Curves => f.write_str("curves"),
            Self::Speed => f.write_str("speed"),
            Self::Workload(workload) => write!(f, "workload/{}", workload.name()),
        }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let parts = Self::all(false);
        let known = parts.iter().find(|part| part.to_string() == name);
        known.copied().ok_or_else(|| {
            let names: Vec<String> = parts.iter().map(Self::to_string).collect();
            format!("expected one of {}, found `{name}`", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike_and_are_all_different() {
        let parts = Part::all(false);
        assert_eq!(parts.len(), 20);
        for (place, part) in parts.iter().enumerate() {
            assert_eq!(part.to_string().parse(), Ok(*part));
            assert!(!parts[..place].contains(part));
        }
        let error = "kernel/conv".parse::<Part>().unwrap_err();
        assert!(error.contains("kernel/conv2d") && error.contains("`kernel/conv`"));
    }

    #[test]
    fn a_quick_check_times_nothing() {
        let parts = Part::all(true);
        assert_eq!(parts.len(), 16);
        assert!(parts.contains(&Part::Curves) && !parts.contains(&Part::Speed));
    }
}
