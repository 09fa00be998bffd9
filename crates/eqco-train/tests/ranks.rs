//! The program as several processes: one run folder, the figures of one process, and an end in any case.

mod clean_environment;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clean_environment::program;
use serde_json::Value;

/// A run that takes about a second without optimisation: ResNet-18 of width 2 on 8-pixel images.
const TINY: [&str; 11] = [
    "--data=synthetic",
    "--limit=48",
    "--image-size=8",
    "--width=2",
    "--batch-size=16",
    "--negatives=4",
    "--epochs=2",
    "--threads=1",
    "--set=schedule.warmup_epochs=0",
    "--set=evaluation.knn.neighbours=5",
    "--set=evaluation.linear_probe.epochs=2",
];

/// A port that was free a moment ago.
fn port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// The program as rank `rank` of `size`, as torchrun would start it.
fn rank(folder: &Path, (rank, size): (usize, usize), port: &str) -> Command {
    let mut command = program(folder);
    command
        .env("RANK", rank.to_string())
        .env("LOCAL_RANK", rank.to_string())
        .env("WORLD_SIZE", size.to_string())
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port)
        .env("EQCO_GROUP_TIMEOUT", "60")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// All ranks of a run with `arguments`, started together.
fn start(folder: &Path, size: usize, arguments: &[&str]) -> Vec<Child> {
    let port = port();
    let one = |place| {
        rank(folder, (place, size), &port)
            .args(arguments)
            .spawn()
            .unwrap()
    };
    (0..size).map(one).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn records(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn two_processes_leave_the_one_run_that_one_process_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [&TINY[..], &["--out=shared", "--seed=3"]].concat();
    let outputs: Vec<Output> = start(folder.path(), 2, &arguments)
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    for output in &outputs {
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let shown = text(&outputs[0].stderr);
    assert!(
        shown.contains("ranks    2 processes, 8 images of a batch each"),
        "{shown}"
    );
    assert!(shown.contains("epoch 2/2  loss "), "{shown}");
    assert_eq!(text(&outputs[1].stdout) + &text(&outputs[1].stderr), "");

    let arguments = [&TINY[..], &["--out=single", "--seed=3", "--micro-batch=8"]].concat();
    let single = program(folder.path()).args(arguments).output().unwrap();
    assert!(single.status.success(), "{}", text(&single.stderr));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);

    let [shared, single] = ["shared", "single"].map(|name| records(&folder.path().join(name)));
    assert_eq!(shared.len(), single.len());
    assert_eq!(
        (&shared[0]["ranks"], &single[0]["ranks"]),
        (&2.into(), &1.into())
    );
    for (shared, single) in shared.iter().zip(&single) {
        assert_eq!(shared["kind"], single["kind"]);
        for key in [
            "loss",
            "contrast_top1",
            "gradient_scale",
            "negative_similarity",
            "guaranteed_bound",
        ] {
            let pair = [shared, single].map(|record| record[key].as_f64().unwrap_or(0.0));
            // The order of sums alone differs.
            assert!(
                (pair[0] - pair[1]).abs() < 1e-4,
                "{key}: {pair:?} in {shared}"
            );
        }
    }
    let summary = |name: &str| {
        let text = fs::read_to_string(folder.path().join(name).join("summary.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    // 500 test images: a few that lie between two classes may turn over.
    for column in ["knn_top1", "linear_top1"] {
        let [a, b] =
            ["shared", "single"].map(|name| summary(name)["pretrained"][column].as_f64().unwrap());
        assert!((a - b).abs() <= 1.0, "{column}: {a} {b}");
    }
}

/// A run that does not end by itself, whose first epoch is over. What rank 0 says later nobody reads but the pipe, which is
/// far from full when the run is stopped.
fn under_way(folder: &Path, size: usize) -> Vec<Child> {
    let endless = [
        "--out=run",
        "--set=schedule.epochs=100000",
        "--set=run.checkpoint_every_epochs=100000",
    ];
    let mut ranks = start(folder, size, &[&TINY[..], &endless].concat());
    let mut lines = BufReader::new(ranks[0].stderr.take().unwrap()).lines();
    let begun: Vec<String> = lines
        .by_ref()
        .map(|line| line.unwrap())
        .take_while(|line| !line.starts_with("epoch "))
        .collect();
    assert!(
        begun.iter().any(|line| line.starts_with("ranks ")),
        "{begun:?}"
    );
    // Somebody has to read on, for a pipe that is full would stop rank 0.
    thread::spawn(move || lines.for_each(drop));
    ranks
}

#[test]
fn the_others_end_with_an_error_when_a_rank_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut ranks = under_way(folder.path(), 4);
    ranks[1].kill().unwrap();
    let started = Instant::now();
    let outputs: Vec<Output> = ranks
        .into_iter()
        .map(|rank| rank.wait_with_output().unwrap())
        .collect();
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(outputs[0].status.code(), Some(1));
    assert_eq!(outputs[2].status.code(), Some(1));
    let told = text(&outputs[2].stderr);
    assert!(
        told.contains("error: rank 0 has ended: the connection to rank 1 is lost: "),
        "{told}"
    );
    assert!(
        told.contains("hint: the first error is in the output of that rank"),
        "{told}"
    );
}

#[cfg(unix)]
#[test]
fn a_stop_asked_of_one_rank_stops_all_after_the_same_step() {
    let folder = tempfile::tempdir().unwrap();
    let ranks = under_way(folder.path(), 2);
    let process = ranks[1].id().to_string();
    let sent = Command::new("kill")
        .args(["-TERM", &process])
        .status()
        .unwrap();
    assert!(sent.success());
    for rank in ranks {
        assert_eq!(rank.wait_with_output().unwrap().status.code(), Some(130));
    }
    let run = folder.path().join("run");
    let records = records(&run);
    let last = records.last().unwrap();
    assert_eq!(
        (&last["kind"], &last["finished"]),
        (&"end".into(), &false.into())
    );
    let step = last["step"].as_u64().unwrap();
    assert!(
        run.join(format!("checkpoints/step-{step:09}.safetensors"))
            .exists()
    );
}

#[test]
fn a_rank_that_never_comes_is_an_error_within_the_timeout() {
    let (folder, started) = (tempfile::tempdir().unwrap(), Instant::now());
    let mut waiting = rank(folder.path(), (0, 2), &port());
    let output = waiting
        .env("EQCO_GROUP_TIMEOUT", "1")
        .args(TINY)
        .output()
        .unwrap();
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.starts_with("error: of 2 processes, rank 1 did not come within 1 s\nhint: start all"),
        "{told}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_one_rank_refuses_is_told_to_all() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("used/checkpoints")).unwrap();
    let ranks = start(folder.path(), 2, &[&TINY[..], &["--out=used"]].concat());
    let outputs: Vec<Output> = ranks
        .into_iter()
        .map(|rank| rank.wait_with_output().unwrap())
        .collect();
    assert!(text(&outputs[0].stderr).starts_with("error: used already holds a run\n"));
    let told = text(&outputs[1].stderr);
    assert!(
        told.starts_with("error: rank 0 has ended: used already holds a run\n"),
        "{told}"
    );

    let port = port();
    let ranks = ["--seed=1", "--seed=2"]
        .into_iter()
        .enumerate()
        .map(|(place, seed)| {
            let mut command = rank(folder.path(), (place, 2), &port);
            command
                .args(TINY)
                .args([seed, "--out=run"])
                .spawn()
                .unwrap()
        });
    for rank in ranks.collect::<Vec<_>>() {
        let told = text(&rank.wait_with_output().unwrap().stderr);
        assert!(
            told.contains("rank 1 has another settings than rank 0"),
            "{told}"
        );
    }
    assert!(!folder.path().join("run").exists());
}

#[test]
fn environments_that_do_not_say_which_process_this_is_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = program(folder.path());
        let output = command
            .envs(variables.iter().copied())
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let told = refused(&[("RANK", "0")], &TINY);
    assert!(
        told.starts_with("error: WORLD_SIZE is not set, while RANK is: "),
        "{told}"
    );
    assert!(told.contains("\nhint: torchrun sets RANK, "), "{told}");
    let several = [
        ("SLURM_PROCID", "0"),
        ("SLURM_NTASKS", "2"),
        ("SLURM_LOCALID", "0"),
        ("MASTER_ADDR", "localhost"),
        ("MASTER_PORT", "1"),
    ];
    let sweep = ["sweep", "--vary=negatives=2,3", "--out=sweep"];
    let told = refused(&several, &sweep);
    assert!(
        told.starts_with("error: `sweep` is for one process, and 2 have been started\n"),
        "{told}"
    );
    // One task of srun is a run like any other.
    let mut one = program(folder.path());
    let one = one
        .env("SLURM_PROCID", "0")
        .env("SLURM_NTASKS", "1")
        .env("SLURM_LOCALID", "0");
    let output = one.args(TINY).arg("--dry-run").output().unwrap();
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("ranks    one process\n"));
}
