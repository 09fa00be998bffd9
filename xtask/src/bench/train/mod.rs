//! `cargo xtask bench train`: images per second and memory of a training step, ours beside PyTorch's.
//!
//! `case` says what a line of the table is, `program` which programs are run for it, `table` how it
//! is written.

mod case;
pub(super) mod program;
mod table;

use anyhow::Result;

use self::case::{Case, Choice, Family, Precision, Work};
use self::program::{Program, Programs};
use super::pairing::{Comparison, compare};
use crate::python;

/// Training steps, in alternation with PyTorch where there is one.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to train; may be repeated [default: all]
    #[arg(long, value_enum)]
    work: Vec<Work>,
    /// Threads on either side; may be repeated [default: 1, and all cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    threads: Vec<u32>,
    /// Number format of activations; may be repeated [default: all]
    #[arg(long, value_enum)]
    precision: Vec<Precision>,
    /// Our kernels; may be repeated [default: portable]
    #[arg(long, value_enum)]
    family: Vec<Family>,
    /// How often each side runs
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// One JSON object a line rather than a table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The lines of the table, defaults filled in.
    fn cases(&self, cores: usize) -> Vec<Case> {
        let choice = Choice {
            works: self.work.clone(),
            threads: self.threads.iter().map(|count| *count as usize).collect(),
            precisions: self.precision.clone(),
            families: self.family.clone(),
        };
        choice.cases(cores)
    }
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cases = arguments.cases(cores);
    warn_of_load();
    let torch = python::with_packages(&["torch", "torchvision"])?;
    if torch.is_none() {
        eprintln!("no PyTorch here, so only our side runs: {}", python::HINT);
    }
    let programs = Programs::build(&cases, torch)?;
    if !arguments.json {
        println!("{}", table::head());
    }
    for case in &cases {
        let comparison = measure(case, &programs, arguments.pairs)?;
        if arguments.json {
            println!("{}", serde_json::to_string(&comparison)?);
        } else {
            println!("{}", table::line(&comparison));
        }
    }
    if !arguments.json && cases.iter().any(|case| case.work == Work::Negatives) {
        println!("{}", table::NEGATIVES_FOOTNOTE);
    }
    Ok(())
}

/// Runs both sides in alternation.
fn measure(case: &Case, programs: &Programs, pairs: u32) -> Result<Comparison> {
    let our_program = programs.ours(case);
    let peer_program = fastest(programs.peers(case))?;
    let mut ours = Vec::new();
    let mut peers = Vec::new();
    for pair in 1..=pairs {
        eprintln!("{case}: pair {pair} of {pairs}");
        ours.push(our_program.measure()?);
        if let Some(peer) = &peer_program {
            peers.push(peer.measure()?);
        }
    }
    compare(case.work.name(), case.work.batch(), &ours, &peers)
}

/// The candidate with the shortest step in one run each; `None` of none.
fn fastest(mut candidates: Vec<Program>) -> Result<Option<Program>> {
    if candidates.len() < 2 {
        return Ok(candidates.pop());
    }
    let mut best: Option<(f64, Program)> = None;
    for candidate in candidates {
        let measured = candidate.measure()?;
        let seconds = measured.seconds_per_step;
        eprintln!("peer {}: {seconds:.3} s a step", measured.family);
        if best.as_ref().is_none_or(|(least, _)| seconds < *least) {
            best = Some((seconds, candidate));
        }
    }
    Ok(best.map(|(_, program)| program))
}

/// Other programs slow down the two sides unequally: AMX kernels wait for each other at barriers.
fn warn_of_load() {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    if let Some(load) = load_of_last_minute(&text).filter(|load| *load > 0.5) {
        eprintln!(
            "warning: the load average is {load}; figures of a busy machine mean little, bf16 ones least"
        );
    }
}

/// The first figure of `/proc/loadavg`.
fn load_of_last_minute(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn cases(line: &str, cores: usize) -> Vec<String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        let parsed = Line::try_parse_from(words).unwrap();
        let cases = parsed.arguments.cases(cores);
        cases.iter().map(Case::to_string).collect()
    }

    #[test]
    fn without_flags_the_whole_table_is_measured() {
        let lines = cases("", 8);
        assert_eq!(lines.len(), 20);
        assert_eq!(lines[0], "resnet18 f32 portable, 1 threads");
        assert_eq!(lines[1], "resnet18 f32 portable, 8 threads");
        assert_eq!(lines[2], "resnet18 bf16 portable, 1 threads");
        assert_eq!(lines[19], "negatives bf16 portable, 8 threads");
        assert_eq!(cases("", 1).len(), 10);
    }

    #[test]
    fn flags_repeat_and_combine() {
        let lines = cases(
            "--work simo --threads 2 --threads 1 --family portable --family onednn",
            8,
        );
        let expected = [
            "simo f32 portable, 2 threads",
            "simo f32 onednn, 2 threads",
            "simo f32 portable, 1 threads",
            "simo f32 onednn, 1 threads",
            "simo bf16 portable, 2 threads",
            "simo bf16 onednn, 2 threads",
            "simo bf16 portable, 1 threads",
            "simo bf16 onednn, 1 threads",
        ];
        assert_eq!(lines, expected);
        for bad in ["--threads 0", "--work resnet34", "--pairs 0"] {
            let words = std::iter::once("bench").chain(bad.split_whitespace());
            assert!(Line::try_parse_from(words).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_load_is_the_first_figure() {
        assert_eq!(
            load_of_last_minute("0.73 0.20 0.10 1/200 4711\n"),
            Some(0.73)
        );
        assert_eq!(load_of_last_minute(""), None);
    }
}
