//! The programs that are timed, and how each line of the table calls them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::pairing::Measurement;
use super::case::{Case, Precision, Work};
use crate::repository;

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

impl Program {
    fn new<T: Into<String>>(path: &Path, arguments: impl IntoIterator<Item = T>) -> Self {
        Self {
            path: path.to_path_buf(),
            arguments: arguments.into_iter().map(Into::into).collect(),
        }
    }

    fn with<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Runs it once.
    pub fn measure(&self) -> Result<Measurement> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).stderr(Stdio::inherit());
        let shown = repository::shown(&command);
        let output = command
            .output()
            .with_context(|| format!("cannot start `{shown}`"))?;
        ensure!(
            output.status.success(),
            "`{shown}` failed ({})",
            output.status
        );
        Measurement::parse(&String::from_utf8_lossy(&output.stdout)).with_context(|| shown)
    }
}

/// Where the programs are.
#[derive(Debug)]
pub struct Programs {
    examples: HashMap<&'static str, PathBuf>,
    torch: Option<PathBuf>,
}

impl Programs {
    /// Builds our side of `cases`; `torch` is the Python for the other.
    pub fn build(cases: &[Case], torch: Option<PathBuf>) -> Result<Self> {
        let mut examples = HashMap::new();
        for case in cases {
            let (package, name) = example(case.work);
            if !examples.contains_key(name) {
                examples.insert(name, build_example(package, name)?);
            }
        }
        Ok(Self { examples, torch })
    }

    /// Our side of a line.
    pub fn ours(&self, case: &Case) -> Program {
        match case.work {
            Work::Resnet18 | Work::Resnet18W16 | Work::Resnet50 => {
                self.example(case).with(["--work", case.work.name()])
            }
            Work::Simo => self.example(case),
            Work::Negatives => self.with_negatives(case, 4096),
        }
    }

    /// The candidates for the other side, of which the fastest counts: none without PyTorch, one for each
    /// variant of the precision for a network, one for each number of loader processes for a whole step.
    pub fn peers(&self, case: &Case) -> Vec<Program> {
        let torch = |script: &str| {
            let script = repository::root().join("python").join(script);
            let python = self.torch.as_ref()?;
            let program = Program::new(python, [script.to_string_lossy()]);
            Some(program.with(shared_arguments(case)))
        };
        match case.work {
            Work::Resnet18 | Work::Resnet18W16 | Work::Resnet50 => variants(case.precision)
                .iter()
                .filter_map(|variant| {
                    let program = torch("train_step_torch.py")?;
                    Some(program.with(["--work", case.work.name(), "--variant", variant]))
                })
                .collect(),
            Work::Simo => worker_counts(case.threads)
                .into_iter()
                .filter_map(|workers| {
                    let program = torch("simo_step_torch.py")?;
                    Some(program.with(["--workers".to_owned(), workers.to_string()]))
                })
                .collect(),
            Work::Negatives => vec![self.with_negatives(case, 16)],
        }
    }

    fn example(&self, case: &Case) -> Program {
        let (_, name) = example(case.work);
        Program::new(&self.examples[name], shared_arguments(case))
            .with(["--backend", case.family.name()])
    }

    /// MoCo v2 with a queue of `count` keys.
    fn with_negatives(&self, case: &Case, count: usize) -> Program {
        let count = format!("method.negative_count={count}");
        let settings = [
            "encoder.width=16",
            "method.name=moco_v2",
            "method.batch_norm_group=32",
            &count,
        ];
        self.example(case)
            .with(settings.into_iter().flat_map(|setting| ["--set", setting]))
    }
}

/// How `train_step_torch.py` can train a network in a precision.
fn variants(precision: Precision) -> &'static [&'static str] {
    match precision {
        Precision::F32 => &["channels-last", "channels-first"],
        Precision::Bf16 => &[
            "autocast-channels-last",
            "whole-model-channels-last",
            "autocast-channels-first",
        ],
    }
}

/// Package and name of the example that does this work.
fn example(work: Work) -> (&'static str, &'static str) {
    match work {
        Work::Resnet18 | Work::Resnet18W16 | Work::Resnet50 => ("eqco-models", "train_step"),
        Work::Simo | Work::Negatives => ("eqco-train", "contrastive_step"),
    }
}

/// What programs of both sides understand.
fn shared_arguments(case: &Case) -> [String; 9] {
    [
        "--batch".to_owned(),
        case.work.batch().to_string(),
        "--threads".to_owned(),
        case.threads.to_string(),
        "--steps".to_owned(),
        case.work.steps().to_string(),
        "--precision".to_owned(),
        case.precision.name().to_owned(),
        "--json".to_owned(),
    ]
}

/// 0, 1, 2, 4, ... up to the number of threads.
fn worker_counts(threads: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(1), |count| Some(count * 2));
    std::iter::once(0)
        .chain(powers.take_while(|count| *count <= threads))
        .collect()
}

/// Builds an example and asks cargo where it is.
pub fn build_example(package: &str, name: &str) -> Result<PathBuf> {
    let mut command = repository::cargo();
    command
        .args(["build", "--release", "--package", package])
        .args(["--example", name, "--message-format=json"])
        .stderr(Stdio::inherit());
    let output = command.output().context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "the example {name} of {package} does not build"
    );
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages).context("cargo did not say where the example is")
}

/// The program that cargo's messages name last.
fn executable(messages: &str) -> Option<PathBuf> {
    let of_line = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    messages.lines().filter_map(of_line).next_back()
}

#[cfg(test)]
mod tests {
    use super::super::case::Family;
    use super::*;

    fn programs(torch: Option<&str>) -> Programs {
        let examples = ["train_step", "contrastive_step"].map(|name| (name, PathBuf::from(name)));
        Programs {
            examples: examples.into(),
            torch: torch.map(PathBuf::from),
        }
    }

    fn case(work: Work) -> Case {
        Case {
            work,
            precision: Precision::Bf16,
            family: Family::Onednn,
            threads: 2,
        }
    }

    #[test]
    fn both_sides_get_the_same_work() {
        let programs = programs(Some("python"));
        let ours = programs.ours(&case(Work::Resnet50));
        let shared = "--batch 8 --threads 2 --steps 3 --precision bf16 --json";
        let expected = format!("{shared} --backend onednn --work resnet50");
        assert_eq!(ours.arguments.join(" "), expected);
        let peers = programs.peers(&case(Work::Resnet50));
        assert_eq!(peers.len(), variants(Precision::Bf16).len());
        for (peer, variant) in peers.iter().zip(variants(Precision::Bf16)) {
            assert!(peer.arguments[0].ends_with("train_step_torch.py"));
            assert_eq!(
                peer.arguments[1..].join(" "),
                format!("{shared} --work resnet50 --variant {variant}")
            );
        }
    }

    #[test]
    fn a_whole_step_has_a_peer_for_every_number_of_workers() {
        let peers = programs(Some("python")).peers(&case(Work::Simo));
        let workers: Vec<_> = peers
            .iter()
            .map(|peer| peer.arguments.last().unwrap())
            .collect();
        assert_eq!(workers, ["0", "1", "2"]);
        assert_eq!(worker_counts(1), [0, 1]);
        assert_eq!(worker_counts(6), [0, 1, 2, 4]);
        assert!(programs(None).peers(&case(Work::Simo)).is_empty());
    }

    #[test]
    fn negatives_compare_with_ourselves() {
        let programs = programs(None);
        let [peer] = &programs.peers(&case(Work::Negatives))[..] else {
            panic!("one peer")
        };
        let ours = programs.ours(&case(Work::Negatives));
        let differing: Vec<_> = ours
            .arguments
            .iter()
            .zip(&peer.arguments)
            .filter(|(ours, peer)| ours != peer)
            .collect();
        let expected = [(
            &"method.negative_count=4096".to_owned(),
            &"method.negative_count=16".to_owned(),
        )];
        assert_eq!(differing, expected);
    }

    #[test]
    fn the_example_is_found_in_the_messages_of_cargo() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/t/release/examples/train_step"}
{"reason":"build-finished","success":true}"#;
        let expected = PathBuf::from("/t/release/examples/train_step");
        assert_eq!(executable(messages), Some(expected));
        assert_eq!(executable(""), None);
    }
}
