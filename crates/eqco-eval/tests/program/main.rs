//! The program as a user meets it: a checkpoint in, a table or JSON out.

mod contrast;
mod device;
mod embed;
mod formats;
mod neighbors;
mod training;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::Device;
use eqco_models::checkpoint::{Checkpoint, CheckpointMetadata, save};
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, ProjectionHeadConfig,
};
use serde_json::{Value, json};

/// A run folder with the checkpoint of a tiny encoder with the given weights; its training
/// configuration says seed 3.
fn run_folder(weights_seed: u64, training: Value) -> tempfile::TempDir {
    let metadata = CheckpointMetadata {
        encoder: EncoderConfig::cifar(Architecture::Resnet18, 2),
        projection_head: ProjectionHeadConfig {
            kind: HeadKind::BatchNormMlp,
            hidden_dim: 0,
            embedding_dim: 8,
        },
        normalization: Normalization::FASHION_MNIST,
        image_size: 14,
        training,
        step: 780,
        epoch: 10,
        commit: "0123abc".into(),
        progress: serde_json::Value::Null,
    };
    let (config, head) = (&metadata.encoder, &metadata.projection_head);
    let encoder = Encoder::new(
        config,
        head,
        metadata.normalization,
        weights_seed,
        &Device::Cpu,
    )
    .unwrap();
    let tensors = encoder.to_checkpoint().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("checkpoints")).unwrap();
    save(
        &checkpoint_path(folder.path()),
        &Checkpoint { metadata, tensors },
    )
    .unwrap();
    folder
}

fn checkpoint_path(folder: &Path) -> PathBuf {
    folder.join("checkpoints/step-000000780.safetensors")
}

fn training() -> Value {
    json!({"seed": 3, "data": {"source": "embedded"}})
}

fn eqco_eval(arguments: &[&str], path: &Path) -> Output {
    program(&[arguments, &[path.to_str().unwrap()]].concat())
}

/// The program with any arguments.
fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eqco-eval"));
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn succeeded(output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(
        stderr, "",
        "nothing to say to people when stderr is not a terminal"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a command that must fail without a result.
fn failed(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn knn_compares_the_encoder_with_its_initialisation_and_with_pixels() {
    let arguments = [
        "knn",
        "--limit",
        "200",
        "--k",
        "5",
        "--untrained",
        "--raw-pixels",
    ];
    // The weights are those of the seed, so "pre-trained" and "untrained" must agree in every digit.
    let folder = run_folder(3, training());
    let table = succeeded(eqco_eval(&arguments, folder.path()));
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("5 nearest neighbours, temperature 0.07: "),
        "{table}"
    );
    assert!(
        lines[0].ends_with("200 training and 200 test images"),
        "{table}"
    );
    assert_eq!(lines[2].trim(), "kNN top-1 %");
    let figure = |line: usize, name: &str| -> f64 {
        let figure = lines[line]
            .strip_prefix(name)
            .unwrap_or_else(|| panic!("{name} in {table}"));
        figure.trim().parse().unwrap()
    };
    assert_eq!(figure(3, "pre-trained"), figure(4, "untrained"));
    assert!(figure(5, "raw pixels") > 50.0, "{table}");
    assert_eq!(lines.len(), 6, "{table}");

    // Other weights under the same seed are another encoder.
    let folder = run_folder(4, training());
    let arguments = [&arguments[..], &["--json"]].concat();
    let json: Value =
        serde_json::from_str(&succeeded(eqco_eval(&arguments, folder.path()))).unwrap();
    let results = &json["results"];
    assert_eq!(results.as_object().unwrap().len(), 3);
    assert_ne!(
        results["pretrained"]["per_class_top1"],
        results["untrained"]["per_class_top1"]
    );
    assert_eq!(results["raw_pixels"]["top1"], figure(5, "raw pixels"));
    let protocol = &results["pretrained"]["protocol"];
    assert_eq!(
        protocol["config"],
        json!({"neighbours": 5, "temperature": 0.07})
    );
    assert_eq!(
        (&protocol["dim"], &protocol["train"]["count"]),
        (&json!(16), &json!(200))
    );
    assert_eq!(json["checkpoint"]["metadata"]["step"], 780);
    assert_eq!(
        json["checkpoint"]["encoder_sha256"].as_str().unwrap().len(),
        64
    );
}

#[test]
fn linear_tells_its_whole_protocol() {
    let folder = run_folder(3, json!({}));
    let arguments = [
        "linear",
        "--data",
        "embedded",
        "--limit",
        "100",
        "--learning-rates",
        "0.5,2",
        "--weight-decays",
        "0",
        "--epochs",
        "3",
        "--seed",
        "9",
        "--image-size",
        "28",
        "--raw-pixels",
        "--threads",
        "1",
        "--json",
        "--checkpoint",
    ];
    let json: Value = serde_json::from_str(&succeeded(eqco_eval(
        &arguments,
        &checkpoint_path(folder.path()),
    )))
    .unwrap();
    let result = &json["results"]["raw_pixels"];
    let config = &result["protocol"]["config"];
    assert_eq!(config["learning_rates"], json!([0.5, 2.0]));
    assert_eq!((&config["epochs"], &config["seed"]), (&json!(3), &json!(9)));
    assert_eq!(
        result["protocol"]["train"]["origin"]["representation"],
        "raw pixels, 28x28"
    );
    assert_eq!(
        result["protocol"]["dim"], 784,
        "grey images keep one channel"
    );
    assert_eq!(result["held_out_count"], 10);
    assert_eq!(result["grid"].as_array().unwrap().len(), 2);
    assert!(result["top1"].as_f64().unwrap() > 40.0, "{result}");
    assert_eq!(json["results"].as_object().unwrap().len(), 2);
}

#[test]
fn errors_go_to_stderr_with_a_hint_and_without_a_result() {
    let folder = run_folder(3, training());
    let stderr = failed(eqco_eval(
        &["knn", "--k", "201", "--limit", "200"],
        folder.path(),
    ));
    let expected = "error: neighbours: expected 1 to 200, the number of training images, got 201";
    assert!(stderr.starts_with(expected), "{stderr}");

    let stderr = failed(eqco_eval(&["knn", "--data", "embeded"], folder.path()));
    assert!(
        stderr.contains("no data set is called `embeded`"),
        "{stderr}"
    );
    assert!(
        stderr.contains("hint: did you mean `embedded`?"),
        "{stderr}"
    );

    let empty = tempfile::tempdir().unwrap();
    let stderr = failed(eqco_eval(&["linear"], empty.path()));
    assert!(
        stderr.contains("expected a checkpoint") && stderr.contains("hint: "),
        "{stderr}"
    );

    let stderr = failed(eqco_eval(
        &["linear"],
        &empty.path().join("absent.safetensors"),
    ));
    assert!(stderr.contains("nothing at this path"), "{stderr}");

    let unknown = run_folder(3, json!({}));
    let stderr = failed(eqco_eval(&["knn"], unknown.path()));
    assert!(stderr.contains("give --data"), "{stderr}");
    let arguments = ["knn", "--data", "embedded", "--limit", "20", "--untrained"];
    let stderr = failed(eqco_eval(&arguments, unknown.path()));
    assert!(stderr.contains("leave --untrained away"), "{stderr}");
}
