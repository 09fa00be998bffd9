//! The same photographs from every kind of source, none of them in the page cache.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::super::train::program::build_example;
use super::program::{Timed, measure};
use super::sources::{FORMS, columns, write_forms};
use super::{Arguments, Scratch};
use crate::repository;

/// Where Linux takes the order to drop its caches.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// Runs this part of the benchmark on a folder of photographs.
pub fn run(arguments: &Arguments, photographs: &Path) -> Result<()> {
    if cfg!(not(target_os = "linux")) {
        println!("NOT RUN: only Linux drops files from its page cache");
        return Ok(());
    }
    let reader = build_example("eqco-data", "open_source")?;
    let mut rates: [Vec<f64>; FORMS.len()] = Default::default();
    for round in 1..=arguments.pairs {
        eprintln!("cold cache: round {round} of {}", arguments.pairs);
        // Fresh copies, so that no round finds what an earlier one has brought into some cache below.
        let folder = Scratch::new("cold")?;
        write_forms(photographs, &folder)?;
        for (place, (_, form)) in FORMS.iter().enumerate() {
            let path = folder.0.join(form);
            // Archives are indexed once, and kept; that is not what is measured.
            let mut command = Command::new(&reader);
            repository::run(
                command
                    .arg("read")
                    .arg(&path)
                    .stdout(std::process::Stdio::null()),
            )?;
            repository::run(Command::new(&reader).arg("forget").arg(&path))?;
            if arguments.drop_caches {
                fs::write(DROP_CACHES, "3")
                    .with_context(|| format!("cannot write {DROP_CACHES}, which takes root"))?;
            }
            let run: Timed = measure(Command::new(&reader).arg("read").arg(&path))?;
            rates[place].push(run.rate());
        }
    }
    let how = match arguments.drop_caches {
        true => "caches of the whole system dropped, folders and inodes too",
        false => "files dropped by posix_fadvise; folders and inodes stay in memory",
    };
    println!("files read in random order by one thread out of a cold cache ({how}):");
    println!(
        "{:<14} {:>10} {:>6} {:>11}",
        "source", "files/s", "ratio", "min-max"
    );
    for (place, (name, _)) in FORMS.iter().enumerate() {
        println!("{name:<14} {}", columns(&rates, place));
    }
    Ok(())
}
