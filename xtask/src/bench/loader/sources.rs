//! The same photographs from every kind of source, in the page cache: views and files, beside a folder.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::super::pairing::{median, range};
use super::super::train::program::build_example;
use super::program::{Run, Timed, measure};
use super::{Arguments, Scratch};
use crate::repository;

/// What the table calls a source, and where `source_forms` writes it. The first is what the others are compared with.
pub const FORMS: [(&str, &str); 5] = [
    ("folder", "folder"),
    ("tar in place", "tar"),
    ("shards", "shards"),
    ("packed", "packed.eqco"),
    ("parquet", "parquet"),
];

/// Runs this part of the benchmark on a folder of photographs.
pub fn run(arguments: &Arguments, photographs: &Path) -> Result<()> {
    let [views, reader] =
        ["encoded_views", "open_source"].map(|name| build_example("eqco-data", name));
    let (views, reader) = (views?, reader?);
    let folder = Scratch::new("sources")?;
    write_forms(photographs, &folder)?;
    let mut rates = Rates::default();
    for round in 1..=arguments.pairs {
        eprintln!("sources: round {round} of {}", arguments.pairs);
        for (place, (_, form)) in FORMS.iter().enumerate() {
            let path = folder.0.join(form);
            let mut work = Command::new(&views);
            let run: Run = measure(work.arg(&path).args(["one-view", "1"]))?;
            rates.views[place].push(run.rate());
            let read: Timed = measure(Command::new(&reader).arg("read").arg(&path))?;
            rates.files[place].push(read.rate());
        }
    }
    println!(
        "{:<14} {:>10} {:>6} {:>11}   {:>10} {:>6} {:>11}",
        "source", "view img/s", "ratio", "min-max", "files/s", "ratio", "min-max"
    );
    for (place, (name, _)) in FORMS.iter().enumerate() {
        let [views, files] = [&rates.views, &rates.files].map(|rates| columns(rates, place));
        println!("{name:<14} {views}   {files}");
    }
    Ok(())
}

/// Writes the photographs in all forms below a folder.
pub fn write_forms(photographs: &Path, folder: &Scratch) -> Result<()> {
    let writer = build_example("eqco-data", "source_forms")?;
    let mut command = Command::new(writer);
    repository::run(command.arg("all").arg(photographs).arg(&folder.0))
}

/// Images per second of every source, round by round.
#[derive(Default)]
struct Rates {
    views: [Vec<f64>; FORMS.len()],
    files: [Vec<f64>; FORMS.len()],
}

/// Median, and its ratio to the folder's within rounds.
pub fn columns(rates: &[Vec<f64>; FORMS.len()], place: usize) -> String {
    let pairs = rates[place].iter().zip(&rates[0]);
    let ratios: Vec<f64> = pairs.map(|(one, folder)| one / folder).collect();
    let rate = median(rates[place].iter().copied()).unwrap_or_default();
    let ratio = median(ratios.iter().copied()).unwrap_or_default();
    let [least, largest] = range(&ratios).unwrap_or_default();
    let range = format!("{least:.2}-{largest:.2}");
    format!("{rate:>10.0} {ratio:>6.2} {range:>11}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_those_within_a_round() {
        let mut rates: [Vec<f64>; FORMS.len()] = Default::default();
        rates[0] = vec![100.0, 50.0, 200.0];
        rates[1] = vec![110.0, 100.0, 220.0];
        assert_eq!(columns(&rates, 0), "       100   1.00   1.00-1.00");
        assert_eq!(columns(&rates, 1), "       110   1.10   1.10-2.00");
    }
}
