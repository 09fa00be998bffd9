//! The sweep as a program: what it runs, what it keeps, and how it goes on.

mod clean_environment;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use clean_environment::program;

/// Runs of about a second without optimisation.
const TINY: [&str; 12] = [
    "--data=synthetic",
    "--limit=48",
    "--image-size=8",
    "--width=2",
    "--batch-size=16",
    "--negatives=4",
    "--set=schedule.warmup_epochs=0",
    "--set=run.knn_every_epochs=1",
    "--set=run.knn_images=24",
    "--set=evaluation.knn.neighbours=5",
    "--set=evaluation.linear_probe.epochs=2",
    "--out=sweep",
];

fn command(folder: &Path, epochs: u32, arguments: &[&str]) -> Command {
    let mut command = program(folder);
    command
        .arg("sweep")
        .args(TINY)
        .arg(format!("--epochs={epochs}"))
        .args(arguments);
    command
}

fn sweep(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, 2, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The table as rows of fields, its header first.
fn table(folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("sweep/table.csv")).unwrap();
    let fields = |line: &str| line.split(',').map(str::to_owned).collect();
    text.lines().map(fields).collect()
}

fn column(table: &[Vec<String>], name: &str) -> Vec<String> {
    let index = table[0].iter().position(|field| field == name).unwrap();
    table[1..].iter().map(|row| row[index].clone()).collect()
}

#[test]
fn a_grid_is_run_once_tabulated_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let grid = [
        "--vary=negatives=4,8",
        "--vary=alpha=256,infonce",
        "--jobs=2",
    ];
    let output = sweep(folder.path(), &grid);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("sweep of 4 runs in sweep: 0 complete, up to 2 side by side"),
        "{stderr}"
    );

    let rows = table(folder.path());
    assert_eq!(column(&rows, "negatives"), ["4", "4", "8", "8"]);
    assert_eq!(column(&rows, "alpha"), ["256", "infonce", "256", "infonce"]);
    assert_eq!(column(&rows, "state"), ["complete"; 4]);
    for name in [
        "loss",
        "gradient_scale",
        "knn_top1",
        "linear_top1",
        "images_per_second",
    ] {
        for value in column(&rows, name) {
            assert!(value.parse::<f64>().unwrap().is_finite(), "{name}: {value}");
        }
    }
    // 48 images: chance is ln(1 + 256) or ln(1 + K) before the first step.
    let loss: Vec<f64> = column(&rows, "loss")
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    assert!(loss[0] > 3.0 && loss[1] < 3.0, "{loss:?}");
    let stdout = text(&output.stdout);
    assert_eq!(
        stdout.lines().next().unwrap().split_whitespace().next(),
        Some("negatives")
    );

    let run = folder.path().join("sweep/negatives-8_alpha-infonce_seed-0");
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.matches("\"kind\":\"knn\"").count(), 2);
    assert!(metrics.contains("\"chance_loss\":2.19722"), "ln(1 + 8)");
    let events = fs::read_dir(run.join("tensorboard"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert!(events.metadata().unwrap().len() > 1000);
    assert!(
        !fs::read_to_string(run.join("summary.json"))
            .unwrap()
            .contains("raw_pixels")
    );

    // The same command has nothing left to do; a larger grid does what is new.
    let again = sweep(folder.path(), &grid);
    assert!(
        text(&again.stderr).contains("4 complete"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(
        fs::read_to_string(run.join("metrics.jsonl")).unwrap(),
        metrics
    );
    let plan = sweep(
        folder.path(),
        &[
            "--vary=negatives=4,8",
            "--vary=alpha=256,infonce,decoupled",
            "--plan",
        ],
    );
    let listed = text(&plan.stdout);
    assert!(plan.status.success(), "{}", text(&plan.stderr));
    assert!(
        listed.contains("6 runs, 4 complete; the others take about "),
        "{listed}"
    );
    assert!(
        !folder
            .path()
            .join("sweep/negatives-4_alpha-decoupled_seed-0")
            .exists()
    );

    // Other settings in the same folder are refused before anything runs.
    let other = sweep(
        folder.path(),
        &["--vary=negatives=4,8", "--vary=alpha=256", "--lr=0.3"],
    );
    let stderr = text(&other.stderr);
    assert_eq!(other.status.code(), Some(1));
    assert!(
        stderr.contains("`schedule.base_learning_rate` is 0.2 there and 0.3 here"),
        "{stderr}"
    );
    assert!(stderr.contains("hint: choose another --out"), "{stderr}");
}

#[test]
fn a_run_that_fails_takes_no_other_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = sweep(folder.path(), &["--vary=lr=0.1,1e300"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        column(&table(folder.path()), "state"),
        ["complete", "failed"]
    );
    let stderr = text(&output.stderr);
    assert!(stderr.contains("1 of 2 runs failed"), "{stderr}");
    let log = fs::read_to_string(folder.path().join("sweep/logs/lr-1e300_seed-0.log")).unwrap();
    assert!(log.contains("error: "), "{log}");
}

#[cfg(unix)]
#[test]
fn a_sweep_that_is_stopped_goes_on_with_the_same_command() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "--vary=negatives=4,8",
        "--jobs=1",
        "--set=run.final_table=false",
        "--set=run.knn_every_epochs=0",
    ];
    let mut long = command(folder.path(), 100_000, &arguments);
    let mut child = long
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let first = folder.path().join("sweep/negatives-4_seed-0");
    let under_way = || {
        fs::read_to_string(first.join("metrics.jsonl")).is_ok_and(|text| text.contains("\"epoch\""))
    };
    while !under_way() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the sweep has ended early"
        );
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(
        column(&table(folder.path()), "state"),
        ["running", "waiting"]
    );
    // A second sweep of the same folder is refused meanwhile.
    let second = long.stderr(Stdio::piped()).output().unwrap();
    assert!(text(&second.stderr).contains("another sweep is writing to sweep"));
    let process = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &process])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(
        column(&table(folder.path()), "state"),
        ["stopped", "waiting"]
    );
    // The run was asked to stop, not killed: it has written its end and a checkpoint.
    let metrics = fs::read_to_string(first.join("metrics.jsonl")).unwrap();
    assert!(
        metrics.trim_end().ends_with("\"finished\":false}"),
        "{metrics}"
    );

    // As if it had been a short one: what it left is moved aside by the next command, and the run is done anew.
    let config = first.join("config.toml");
    let text_of_short = fs::read_to_string(&config)
        .unwrap()
        .replace("epochs = 100000", "epochs = 2");
    fs::write(&config, text_of_short).unwrap();
    let output = sweep(folder.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(column(&table(folder.path()), "state"), ["complete"; 2]);
    assert!(
        folder
            .path()
            .join("sweep/interrupted/negatives-4_seed-0-1/metrics.jsonl")
            .exists()
    );
}

#[test]
fn what_cannot_be_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let output = sweep(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        text(&output.stderr)
    };
    let stderr = refused(&["--vary=negatives=4,64"]);
    assert!(
        stderr.contains("the run negatives-64 cannot be configured"),
        "{stderr}"
    );
    assert!(
        stderr.contains("the nearest that it can have is 15"),
        "{stderr}"
    );
    let stderr = refused(&["--vary=negativ=4,8"]);
    assert!(stderr.contains("unknown key `negativ`"), "{stderr}");
    assert!(refused(&["--vary=negatives"]).contains("expected KEY=A,B,C"));

    fs::write(folder.path().join("sweep"), "").unwrap();
    let output = sweep(folder.path(), &["--vary=negatives=4,8"]);
    let stderr = text(&output.stderr);
    assert!(
        stderr.starts_with("error: sweep is a file or lies below one, expected a folder"),
        "{stderr}"
    );

    let run = folder.path().join("sweep");
    fs::remove_file(&run).unwrap();
    fs::create_dir(&run).unwrap();
    fs::write(run.join("config.toml"), "").unwrap();
    let output = sweep(folder.path(), &["--vary=negatives=4,8"]);
    let stderr = text(&output.stderr);
    assert!(
        stderr.starts_with("error: sweep is the folder of a run, expected that of a sweep"),
        "{stderr}"
    );
    assert_eq!(fs::read_dir(&run).unwrap().count(), 1);
}
