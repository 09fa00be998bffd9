//! From encoded photographs to u8 views, images per second of one core, beside other libraries.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use super::super::pairing::{median, range};
use super::super::train::program::build_example;
use super::Arguments;
use super::program::{Run, measure};
use crate::{python, repository};

/// What is made of each photograph.
const WORKS: [&str; 2] = ["two-views", "one-view"];

/// The names that `two_views_peer.py` gives to libraries, and the packages that each needs.
const PEERS: [(&str, &[&str]); 4] = [
    ("torchvision-pil", &["torch", "torchvision", "PIL"]),
    ("torchvision-tensor", &["torch", "torchvision"]),
    ("opencv", &["torch", "cv2"]),
    ("albumentations", &["torch", "albumentations"]),
];

/// One line of the table: images per second of processor time, medians over runs; ratios are those within pairs.
#[derive(Debug, PartialEq, Serialize)]
struct Comparison {
    work: &'static str,
    peer: &'static str,
    ours: f64,
    theirs: f64,
    ratio: f64,
    ratio_range: [f64; 2],
}

impl Comparison {
    fn new(work: &'static str, peer: &'static str, pairs: &[(Run, Run)]) -> Option<Self> {
        let ratios: Vec<f64> = pairs
            .iter()
            .map(|(our, their)| our.rate() / their.rate())
            .collect();
        Some(Self {
            work,
            peer,
            ours: median(pairs.iter().map(|(our, _)| our.rate()))?,
            theirs: median(pairs.iter().map(|(_, their)| their.rate()))?,
            ratio_range: range(&ratios)?,
            ratio: median(ratios.into_iter())?,
        })
    }

    fn line(&self) -> String {
        let [least, largest] = self.ratio_range;
        format!(
            "{:<10} {:<19} {:>10.0} {:>10.0} {:>6.2} {:>11}",
            self.work,
            self.peer,
            self.ours,
            self.theirs,
            self.ratio,
            format!("{least:.2}-{largest:.2}")
        )
    }
}

/// Runs this part of the benchmark on a folder of photographs.
pub fn run(arguments: &Arguments, folder: &Path) -> Result<()> {
    let ours = build_example("eqco-data", "encoded_views")?;
    if !arguments.json {
        println!(
            "{:<10} {:<19} {:>10} {:>10} {:>6} {:>11}",
            "work", "peer", "ours img/s", "peer img/s", "ratio", "min-max"
        );
    }
    for work in WORKS {
        let our_program = || measure::<Run>(Command::new(&ours).arg(folder).args([work, "2"]));
        let mut compared = 0;
        for (peer, packages) in PEERS {
            let Some(interpreter) = python::with_packages(packages)? else {
                eprintln!(
                    "NOT RUN: {peer}, for no Python has {}: {}",
                    packages.join(", "),
                    python::HINT
                );
                continue;
            };
            let mut pairs = Vec::new();
            for pair in 1..=arguments.pairs {
                eprintln!("{work} beside {peer}: pair {pair} of {}", arguments.pairs);
                pairs.push((
                    our_program()?,
                    measure(&mut peer_program(&interpreter, folder, peer, work))?,
                ));
            }
            let comparison = Comparison::new(work, peer, &pairs).context("nothing was measured")?;
            println!(
                "{}",
                if arguments.json {
                    serde_json::to_string(&comparison)?
                } else {
                    comparison.line()
                }
            );
            compared += 1;
        }
        if compared == 0 {
            let rate = our_program()?.rate();
            println!("{work:<10} {:<19} {rate:>10.0}", "-");
        }
    }
    Ok(())
}

fn peer_program(interpreter: &Path, folder: &Path, peer: &str, work: &str) -> Command {
    let mut command = Command::new(interpreter);
    command
        .arg(repository::root().join("python/two_views_peer.py"))
        .arg(folder)
        .args([peer, work, "1"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(images: f64, cpu_seconds: f64) -> Run {
        Run::new(images, cpu_seconds)
    }

    #[test]
    fn ratios_are_taken_within_pairs_whatever_the_numbers_of_images() {
        // The second pair runs on a machine half as quick.
        let pairs = [
            (run(200.0, 1.0), run(50.0, 1.0)),
            (run(200.0, 2.0), run(50.0, 2.0)),
            (run(200.0, 1.0), run(100.0, 1.0)),
        ];
        let comparison = Comparison::new("two-views", "opencv", &pairs).unwrap();
        assert_eq!((comparison.ours, comparison.theirs), (200.0, 50.0));
        assert_eq!(
            (comparison.ratio, comparison.ratio_range),
            (4.0, [2.0, 4.0])
        );
        assert!(
            comparison
                .line()
                .ends_with("200         50   4.00   2.00-4.00")
        );
        assert_eq!(Comparison::new("two-views", "opencv", &[]), None);
    }
}
