//! Where the memory of training goes.

use std::fmt;
use std::fs;

use crate::gpu_check::memory::peak_bytes;
use crate::machine::bytes_in_words;
use crate::step::Trainer;

/// Bytes by part, after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Parameters and running statistics of the query encoder and of the momentum encoder.
    pub parameters: usize,
    /// Gradients of the parameters.
    pub gradients: usize,
    /// What the optimiser remembers.
    pub optimizer: usize,
    /// Activations, and their gradients, at their most.
    pub activations: usize,
    /// MoCo's queue.
    pub queue: usize,
    /// What a step that has to be skipped is taken back with.
    pub undo: usize,
    /// The most that the process has held at a time, or that the GPU has, where the system tells.
    pub peak: Option<u64>,
}

impl Memory {
    /// That of a trainer between two steps.
    pub fn of(trainer: &Trainer) -> Self {
        let device = trainer.encoder().device();
        let peak = match device.is_cpu() {
            true => process_peak(),
            // A driver that does not tell is no reason to stop.
            false => peak_bytes(device).unwrap_or(None),
        };
        Self {
            peak,
            ..trainer.memory()
        }
    }

    /// All parts together.
    pub fn known(&self) -> usize {
        self.parameters
            + self.gradients
            + self.optimizer
            + self.activations
            + self.queue
            + self.undo
    }

    /// What is wrong if the machine has only so much.
    pub fn shortage(&self, available: Option<u64>) -> Option<String> {
        let (peak, available) = (self.peak?, available?);
        // The loader's batches and the page cache want some, too.
        (peak > available / 10 * 9).then(|| {
            format!(
                "{} of the {} that this process may use: a run may be killed for it; --micro-batch takes the batch in parts",
                bytes_in_words(peak),
                bytes_in_words(available)
            )
        })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peak {
            Some(peak) => write!(f, "{} at most: ", bytes_in_words(peak))?,
            None => write!(f, "{} at least: ", bytes_in_words(self.known() as u64))?,
        }
        let parts = [
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("optimiser", self.optimizer),
            ("activations", self.activations),
            ("queue", self.queue),
            ("undo", self.undo),
        ];
        let parts = parts.iter().filter(|(_, bytes)| *bytes > 0);
        let parts: Vec<_> = parts
            .map(|(name, bytes)| format!("{name} {}", bytes_in_words(*bytes as u64)))
            .collect();
        f.write_str(&parts.join(", "))
    }
}

/// The most memory that this process has held.
fn process_peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Memory = Memory {
        parameters: 3 << 20,
        gradients: 1 << 20,
        optimizer: 1 << 20,
        activations: 5 << 19,
        queue: 0,
        undo: 0,
        peak: Some(90 << 20),
    };

    #[test]
    fn parts_add_up_and_empty_ones_are_left_out() {
        assert_eq!(MEMORY.known(), 15 << 19);
        assert_eq!(
            MEMORY.to_string(),
            "90.0 MiB at most: parameters 3.0 MiB, gradients 1.0 MiB, optimiser 1.0 MiB, activations 2.5 MiB"
        );
        let unknown = Memory {
            peak: None,
            queue: 1 << 20,
            ..MEMORY
        };
        assert!(unknown.to_string().starts_with("8.5 MiB at least: "));
        assert!(unknown.to_string().ends_with(", queue 1.0 MiB"));
    }

    #[test]
    fn nearly_all_of_the_machine_is_too_much() {
        assert_eq!(MEMORY.shortage(Some(200 << 20)), None);
        assert_eq!(MEMORY.shortage(None), None);
        let told = MEMORY.shortage(Some(95 << 20)).unwrap();
        assert!(told.starts_with("90.0 MiB of the 95.0 MiB"), "{told}");
    }
}
