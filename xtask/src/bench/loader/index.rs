//! Opening a source with as many images as ImageNet has for training.

use std::process::Command;

use anyhow::Result;

use super::super::train::program::build_example;
use super::Scratch;
use super::program::{Opening, measure};
use crate::repository;

/// Training images of ILSVRC2012.
const IMAGES: u32 = 1_281_167;

/// Form, file name, and what its first opening does that later ones do not.
const SOURCES: [(&str, &str, &str); 2] = [
    (
        "tar",
        "ILSVRC2012_img_train.tar",
        "headers read, index kept",
    ),
    ("packed", "many.eqco", "nothing else"),
];

/// Runs this part of the benchmark.
pub fn run() -> Result<()> {
    let [writer, reader] =
        ["source_forms", "open_source"].map(|name| build_example("eqco-data", name));
    let (writer, reader) = (writer?, reader?);
    let folder = Scratch::new("index")?;
    println!(
        "{:<8} {:>9} {:<8} {:>8} {:>12} {:>9}  first opening",
        "source", "images", "opening", "seconds", "resident MB", "peak MB"
    );
    for (form, file, first) in SOURCES {
        let path = folder.0.join(file);
        eprintln!("index: writing {IMAGES} images as {form}");
        let mut command = Command::new(&writer);
        repository::run(command.args([form, &IMAGES.to_string()]).arg(&path))?;
        for opening in ["first", "second", "third"] {
            let found: Opening = measure(Command::new(&reader).arg("open").arg(&path))?;
            println!("{}", line(form, opening, found, first));
        }
    }
    Ok(())
}

fn line(form: &str, opening: &str, found: Opening, first: &str) -> String {
    let [resident, peak] = [found.resident_bytes, found.peak_bytes].map(|bytes| bytes / 1e6);
    format!(
        "{form:<8} {:>9} {opening:<8} {:>8.2} {resident:>12.0} {peak:>9.0}  {}",
        found.images,
        found.seconds,
        if opening == "first" { first } else { "" }
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_megabytes() {
        let found = Opening {
            images: 1_281_167.0,
            seconds: 0.254,
            resident_bytes: 70.4e6,
            peak_bytes: 71.6e6,
        };
        assert_eq!(
            line("tar", "second", found, "headers read"),
            "tar        1281167 second       0.25           70        72"
        );
    }
}
