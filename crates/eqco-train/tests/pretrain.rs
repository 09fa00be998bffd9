//! The program itself: what it writes, what it refuses, and how it stops.

mod clean_environment;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use candle_core::{DType, Tensor};
use clean_environment::program;
use eqco_models::checkpoint;
use eqco_train::config::TrainConfig;
use serde_json::Value;

/// A run that takes about a second without optimisation: ResNet-18 of width 2 on 8-pixel images.
const TINY: [&str; 12] = [
    "--data=synthetic",
    "--limit=48",
    "--image-size=8",
    "--width=2",
    "--batch-size=16",
    "--negatives=4",
    "--epochs=2",
    "--threads=1",
    "--set=schedule.warmup_epochs=0",
    "--set=run.checkpoint_every_epochs=1",
    "--set=evaluation.knn.neighbours=5",
    "--set=evaluation.linear_probe.epochs=2",
];

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program(folder).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn records(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn kinds(records: &[Value]) -> Vec<&str> {
    records
        .iter()
        .map(|record| record["kind"].as_str().unwrap())
        .collect()
}

#[test]
fn a_run_leaves_configuration_metrics_checkpoints_and_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(
        folder.path(),
        &[&TINY[..], &["--out", "run", "--seed=3"]].concat(),
    );
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    let out = folder.path().join("run");

    let config: TrainConfig =
        toml::from_str(&fs::read_to_string(out.join("config.toml")).unwrap()).unwrap();
    assert_eq!(
        (config.seed, config.encoder.width, config.schedule.epochs),
        (3, 2, 2)
    );

    let records = records(&out);
    let of_epoch = ["step", "step", "step", "epoch", "checkpoint"];
    assert_eq!(
        kinds(&records),
        [&["run"][..], &of_epoch, &of_epoch, &["end"]].concat()
    );
    assert_eq!(
        (&records[0]["steps"], &records[0]["negative_count"]),
        (&6.into(), &4.into())
    );
    assert_eq!(records[0]["backend"], "portable");
    let steps: Vec<_> = records
        .iter()
        .filter(|record| record["kind"] == "step")
        .collect();
    for (number, record) in steps.iter().enumerate() {
        assert_eq!(record["step"], number);
        assert_eq!(record["epoch"], number / 3);
        assert!(record["loss"].as_f64().unwrap().is_finite());
    }
    assert_eq!(records.last().unwrap()["finished"], true);

    for step in [3, 6] {
        let path = out.join(format!("checkpoints/step-{step:09}.safetensors"));
        let metadata = checkpoint::load(&path).unwrap().metadata;
        assert_eq!((metadata.step, metadata.epoch), (step, step / 3));
        // Views of 8 pixels, evaluated at the demo's scale of 1.167.
        assert_eq!(metadata.image_size, 9);
        let stored: TrainConfig = serde_json::from_value(metadata.training).unwrap();
        assert_eq!(stored.encoder, config.encoder);
    }

    let summary = fs::read_to_string(out.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    for row in ["pretrained", "untrained", "raw_pixels"] {
        for column in ["knn_top1", "linear_top1"] {
            let percent = summary[row][column].as_f64().unwrap();
            assert!(
                (0.0..=100.0).contains(&percent),
                "{row} {column}: {percent}"
            );
        }
    }
    assert!(stdout.contains("raw pixels"), "{stdout}");
    assert!(stdout.contains("eqco-eval linear run"), "{stdout}");
    assert!(!out.join("profile.json").exists());
    assert!(stderr.contains("epoch 2/2  loss "), "{stderr}");

    // The folder now belongs to this run.
    let again = run(folder.path(), &["--out", "run"]);
    assert_eq!(again.status.code(), Some(1));
    let stderr = text(&again.stderr);
    assert!(
        stderr.starts_with("error: run already holds a run\nhint: "),
        "{stderr}"
    );
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor
        .to_dtype(DType::F64)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

#[test]
fn two_runs_of_one_seed_write_the_same_weights_and_metrics_whatever_the_loader() {
    let folder = tempfile::tempdir().unwrap();
    let quick = ["--set=schedule.epochs=1", "--set=run.final_table=false"];
    let results = ["1", "3"].map(|workers| {
        let out = format!("with-{workers}");
        let workers = format!("--set=data.loader.workers={workers}");
        let output = run(
            folder.path(),
            &[&TINY[..], &quick, &[&workers, "--out", &out]].concat(),
        );
        assert!(output.status.success(), "{}", text(&output.stderr));
        let out = folder.path().join(out);
        let loaded = checkpoint::load(&out.join("checkpoints/step-000000003.safetensors")).unwrap();
        let tensors: Vec<(String, Vec<f64>)> = loaded
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), values(tensor)))
            .collect();
        let mut records = records(&out);
        for record in &mut records {
            record.as_object_mut().unwrap().remove("timing");
        }
        (tensors, records)
    });
    assert!(results[0].0.len() > 100);
    assert_eq!(results[0], results[1]);
}

#[test]
fn a_profile_accounts_for_every_operation_of_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let quick = ["--set=run.final_table=false", "--profile", "--out=run"];
    let output = run(folder.path(), &[&TINY[..], &quick].concat());
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(stdout.contains("6 steps in "), "{stdout}");
    let stored = fs::read_to_string(folder.path().join("run/profile.json")).unwrap();
    let profile: Value = serde_json::from_str(&stored).unwrap();
    let lines = profile["lines"].as_array().unwrap();

    let seconds: f64 = lines
        .iter()
        .map(|line| line["seconds"].as_f64().unwrap())
        .sum();
    let whole = profile["seconds"].as_f64().unwrap();
    assert!((seconds - whole).abs() < 1e-6 * whole, "{seconds} {whole}");
    let calls = |operation: &str, phase: &str| -> u64 {
        let of = lines.iter().filter(|line| {
            line["operation"].as_str().unwrap().starts_with(operation) && line["phase"] == phase
        });
        of.map(|line| line["calls"].as_u64().unwrap()).sum()
    };
    // ResNet-18 has 20 convolutions, and the first one's input needs no gradient. Six steps, two encoders.
    assert_eq!(calls("conv2d", "forward"), 6 * 2 * 20);
    assert_eq!(calls("conv2d", "weight_gradient"), 6 * 20);
    assert_eq!(calls("conv2d", "input_gradient"), 6 * 19);
    assert_eq!(calls("batch_norm", "backward"), 6 * 22);
    assert_eq!(calls("linear", "backward"), 6 * 2);
    assert_eq!(calls("upload", "other"), 6 * 2);
    // The end of an epoch is waited for as well.
    assert_eq!(calls("waiting for data", "other"), 6 + 2);
    for operation in ["loss", "optimiser", "momentum encoder"] {
        assert_eq!(calls(operation, "other"), 6, "{operation}");
    }
}

#[test]
fn a_dry_run_reports_the_plan_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &[&TINY[..], &["--dry-run"]].concat());
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("48 images, 2 epochs of 3 steps of 16: 6 steps"),
        "{stderr}"
    );
    assert!(
        stderr.contains("simo, 4 negatives a query, alpha 256, temperature 0.2"),
        "{stderr}"
    );
    assert!(output.stdout.is_empty());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn every_preset_with_data_here_passes_a_dry_run() {
    let folder = tempfile::tempdir().unwrap();
    let small = [
        "--data=synthetic",
        "--width=4",
        "--image-size=32",
        "--limit=256",
        "--dry-run",
    ];
    for preset in eqco_train::config::Preset::all() {
        let output = run(
            folder.path(),
            &[&["--preset", preset.name][..], &small].concat(),
        );
        assert!(
            output.status.success(),
            "{}: {}",
            preset.name,
            text(&output.stderr)
        );
    }
}

#[test]
fn images_without_labels_are_trained_on_without_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    fs::create_dir(&images).unwrap();
    for index in 0..20u8 {
        let square = image::GrayImage::from_pixel(9, 9, image::Luma([index]));
        square.save(images.join(format!("{index}.png"))).unwrap();
    }
    let data = [
        "--set=data.source=images",
        "--set=data.limit=0",
        "--set=schedule.epochs=1",
    ];
    let output = run(folder.path(), &[&TINY[..], &data, &["--out=run"]].concat());
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("table    none: "), "{stderr}");
    assert!(!folder.path().join("run/summary.json").exists());

    // Asked for by name, it is an error before anything is written.
    let asked = ["--set=run.final_table=true", "--out=other"];
    let output = run(folder.path(), &[&TINY[..], &data, &asked].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(!folder.path().join("other").exists());
}

#[cfg(unix)]
#[test]
fn a_signal_finishes_the_step_writes_a_checkpoint_and_says_how_to_go_on() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let folder = tempfile::tempdir().unwrap();
    let mut child = program(folder.path())
        .args(TINY)
        .args([
            "--set=schedule.epochs=100000",
            "--set=run.checkpoint_every_epochs=100000",
            "--out=run",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    // The first line of an epoch: the run is under way and listens.
    assert!(lines.any(|line| line.starts_with("epoch ")));
    let process = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &process])
            .status()
            .unwrap()
            .success()
    );
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));

    let out = folder.path().join("run");
    let records = records(&out);
    let last = records.last().unwrap();
    assert_eq!(
        (&last["kind"], &last["finished"]),
        (&"end".into(), &false.into())
    );
    let step = last["step"].as_u64().unwrap();
    assert!(step >= 3);
    let path = out.join(format!("checkpoints/step-{step:09}.safetensors"));
    assert_eq!(checkpoint::load(&path).unwrap().metadata.step, step);
    let rest = rest.join("\n");
    assert!(rest.contains("finishing the step in hand"), "{rest}");
    assert!(
        rest.contains(&format!("stopped after step {step} of 300000")),
        "{rest}"
    );
    assert!(
        rest.contains("eqco-train --config run/config.toml"),
        "{rest}"
    );
}

#[test]
fn errors_name_the_place_and_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, error) in [
        (
            &["--set", "loss.temprature=0.1"][..],
            "error: --set: unknown key `loss.temprature`, did you mean `loss.temperature`?\n",
        ),
        (
            &["--preset", "dmo"],
            "error: no preset is called `dmo`\nhint: did you mean `demo`? ",
        ),
        (
            &["--config", "missing.toml"],
            "error: cannot read the configuration file missing.toml\n  because: No such file or directory (os error 2)\n\
             hint: `eqco-train show-config > my.toml` writes a complete file",
        ),
        (
            &["--device", "cuda"],
            "error: `device`: this build has no CUDA kernels; build it with `--features cuda`\nhint: leave --device away",
        ),
        (
            &["--data", "cifar-10"],
            "error: no data set is called `cifar-10` and no such path exists\n\
             hint: did you mean `cifar10`?",
        ),
        (
            &["--batch-size", "20000"],
            "error: batch_size: expected at most 10000",
        ),
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with(error), "{arguments:?}: {stderr}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn lists_are_printed_to_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["presets"]);
    let list = text(&output.stdout);
    for preset in eqco_train::config::Preset::all() {
        assert!(list.lines().any(|line| line == preset.name), "{list}");
    }

    let output = run(folder.path(), &["show-config", "--alpha", "decoupled"]);
    let shown = text(&output.stdout);
    let alpha = shown
        .lines()
        .find(|line| line.starts_with("alpha = \"decoupled\""))
        .unwrap();
    assert!(alpha.ends_with("# --alpha"), "{alpha}");

    let output = run(folder.path(), &["doctor"]);
    let report = text(&output.stdout);
    for part in [
        "logical cores",
        "instruction sets: ",
        "portable",
        "embedded",
        " free\n",
        "CUDA: this build has no CUDA kernels",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
}
