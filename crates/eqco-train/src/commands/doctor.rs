//! `eqco-train doctor`: what this machine and this build can use, and what would make training faster.

use std::env;
use std::process::ExitCode;

use anyhow::Result;
use eqco_data::{DataError, Split};
use eqco_models::backend::{Backend, BackendError, BackendName};
use eqco_models::cuda::CudaConfig;
use eqco_models::onednn::Onednn;
use eqco_models::{DeviceName, Precision};

use crate::machine::{Machine, bytes_in_words, free_disk_bytes};
use crate::metrics::COMMIT;
use crate::run_path;

pub(super) fn run() -> Result<ExitCode> {
    let machine = Machine::detect();
    let mut text = String::new();
    section(&mut text, "build", &build());
    section(&mut text, "machine", &hardware(&machine));
    section(&mut text, "kernels", &kernels());
    section(&mut text, "data sets", &data_sets());
    section(&mut text, "run folders", &disk()?);
    section(
        &mut text,
        "what would make it faster",
        &advice(&machine, cfg!(debug_assertions)),
    );
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    text.push_str(&format!("{title}\n"));
    lines
        .iter()
        .for_each(|line| text.push_str(&format!("  {line}\n")));
}

fn build() -> Vec<String> {
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    vec![format!(
        "eqco-train {} ({COMMIT}), {profile} build",
        env!("CARGO_PKG_VERSION")
    )]
}

fn hardware(machine: &Machine) -> Vec<String> {
    let memory = machine
        .memory_bytes
        .map_or("unknown".to_owned(), bytes_in_words);
    vec![
        format!("{}, {} logical cores", machine.cpu, machine.cores),
        format!("instruction sets: {}", listed(&machine.instruction_sets)),
        format!("memory: {memory}"),
    ]
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        "none that the kernels know".to_owned()
    } else {
        names.join(", ")
    }
}

fn kernels() -> Vec<String> {
    let portable = format!("{}, f32 and bf16", Backend::Portable);
    let onednn = match Onednn::open() {
        Ok(library) => {
            let bf16 = if library.check(Precision::Bf16).is_err() {
                "f32; no bf16 on this CPU"
            } else {
                "f32 and bf16, in which the portable kernels are quicker"
            };
            let (text, path) = (library.describe(), library.path().display());
            format!("{text}, {bf16} ({path})")
        }
        Err(error) => format!("oneDNN: {error}"),
    };
    let cuda = DeviceName::Cuda(0)
        .open()
        .map_err(BackendError::from)
        .and_then(|gpu| {
            Backend::open(
                BackendName::Cuda,
                Precision::F32,
                &gpu,
                CudaConfig::default(),
            )
        });
    let cuda = match cuda {
        Ok(backend) => format!("{backend} on {}", DeviceName::Cuda(0)),
        Err(error) => format!("CUDA: {error}"),
    };
    vec![portable, onednn, cuda]
}

/// Every data set that has a name, and whether it can be opened.
fn data_sets() -> Vec<String> {
    eqco_data::known_names()
        .map(|name| format!("{name:<14} {}", availability(name)))
        .collect()
}

fn availability(name: &str) -> String {
    match eqco_data::open(name, Split::Train) {
        Ok(dataset) => format!("{}, {} training images", dataset.name(), dataset.len()),
        Err(error @ DataError::NotFetched { .. }) => {
            format!("not here: {}", error.hint().unwrap_or_default())
        }
        Err(error) => format!("cannot be opened: {error}"),
    }
}

fn disk() -> Result<Vec<String>> {
    let base = run_path::base(&env::current_dir()?);
    let free = free_disk_bytes(&base).map_or("unknown".to_owned(), bytes_in_words);
    Ok(vec![format!(
        "{}, {free} free",
        base.join("runs").display()
    )])
}

fn advice(machine: &Machine, is_debug_build: bool) -> Vec<String> {
    let has = |name| machine.instruction_sets.contains(&name);
    let mut advice = Vec::new();
    if is_debug_build {
        advice.push("a release build: cargo run --release --bin eqco-train".to_owned());
    }
    if machine.cores < 4 {
        advice.push(format!(
            "more than {} cores: the kernels use all there are",
            machine.cores
        ));
    }
    if !has("avx512f") && !has("neon") {
        advice.push(
            "a processor with AVX-512: matrix products run about 1.6 times as fast".to_owned(),
        );
    }
    if advice.is_empty() {
        advice.push("nothing that this version could use".to_owned());
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cores: usize, instruction_sets: Vec<&'static str>) -> Machine {
        Machine {
            cpu: "a processor".to_owned(),
            cores,
            instruction_sets,
            memory_bytes: Some(3 << 30),
        }
    }

    #[test]
    fn advice_names_what_is_missing_and_nothing_else() {
        let good = machine(16, vec!["avx2", "fma", "avx512f"]);
        assert_eq!(
            advice(&good, false),
            ["nothing that this version could use"]
        );
        let weak = machine(2, vec!["avx2"]);
        let lines = advice(&weak, true);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("--release"));
        assert!(lines[1].contains("more than 2 cores"));
        assert!(lines[2].contains("AVX-512"));
        assert_eq!(
            advice(&machine(8, vec!["neon"]), false),
            ["nothing that this version could use"]
        );
    }

    #[test]
    fn the_embedded_images_are_always_there() {
        let lines = data_sets();
        let embedded = lines
            .iter()
            .find(|line| line.starts_with("embedded"))
            .unwrap();
        assert!(embedded.ends_with("10000 training images"), "{embedded}");
        assert!(
            lines.iter().any(|line| line.starts_with("cifar10")),
            "{lines:?}"
        );
    }

    #[test]
    fn hardware_in_words() {
        let lines = hardware(&machine(2, Vec::new()));
        assert_eq!(lines[0], "a processor, 2 logical cores");
        assert_eq!(lines[1], "instruction sets: none that the kernels know");
        assert_eq!(lines[2], "memory: 3.0 GiB");
    }
}
