//! Run folders as `eqco-train` leaves them behind, and the program to read them with.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use candle_core::Device;
use eqco_models::checkpoint::{Checkpoint, CheckpointMetadata, save};
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, ProjectionHeadConfig,
};
use serde_json::{Value, json};

/// One run to be put into a folder.
#[derive(Clone, Copy)]
pub struct Recipe {
    /// As in `config.toml`.
    pub alpha: &'static str,
    pub negatives: u64,
    pub temperature: f64,
    pub seed: u64,
    /// kNN and linear top-1; `None` for a run without evaluation.
    pub top1: Option<[f64; 2]>,
    pub source: &'static str,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            alpha: "256.0",
            negatives: 16,
            temperature: 0.2,
            seed: 0,
            top1: Some([40.0, 50.0]),
            source: "synthetic",
        }
    }
}

/// Writes configuration, metrics and measurements, but no checkpoint.
pub fn write_run(folder: &Path, recipe: Recipe) {
    fs::create_dir_all(folder).unwrap();
    let Recipe {
        alpha,
        negatives,
        temperature,
        seed,
        top1,
        source,
    } = recipe;
    let config = format!(
        "seed = {seed}\n[data]\nsource = \"{source}\"\nlimit = 60\n[data.loader]\nbatch_size = 128\n[method]\n\
         name = \"simo\"\nnegative_count = {negatives}\n[loss]\ntemperature = {temperature}\nalpha = {alpha}\n\
         [schedule]\nepochs = 2\n[evaluation.knn]\nneighbours = 5\ntemperature = 0.07\n"
    );
    fs::write(folder.join("config.toml"), config).unwrap();
    fs::write(folder.join("metrics.jsonl"), metrics(recipe)).unwrap();
    if let Some([knn, linear]) = top1 {
        let row = |representation: &str, top1: f64| {
            let sample = |split: &str, count: u64| {
                let origin =
                    json!({"data": "toy", "split": split, "representation": representation});
                json!({"origin": origin, "count": count})
            };
            let protocol = json!({"method": "by hand", "config": {"neighbours": 5}, "train": sample("train", 60),
                "test": sample("test", 40), "dim": 16, "class_count": 10});
            json!({"top1": top1, "per_class_top1": [top1], "protocol": protocol})
        };
        let both = |name: &str, by: f64| json!({"knn": row(name, knn - by), "linear_probe": row(name, linear - by)});
        let evaluation = json!({"pretrained": both("pre-trained encoder", 0.0), "raw_pixels": both("raw pixels", 9.0)});
        fs::write(folder.join("evaluation.json"), evaluation.to_string()).unwrap();
    }
}

fn metrics(recipe: Recipe) -> String {
    let Recipe {
        negatives, seed, ..
    } = recipe;
    let mut records = vec![
        json!({"kind": "run", "version": "0.1.0", "commit": "0123abc", "preset": "demo", "seed": seed,
        "data_set": "toy", "train_images": 60, "negative_count": negatives, "device": "cpu", "backend": "portable",
        "precision": "f32", "threads": 2, "machine": {"cpu": "A <fast> CPU", "cores": 2, "instruction_sets": ["avx2"],
        "memory_bytes": 8_589_934_592u64}}),
    ];
    for step in 0..40u64 {
        let done = step as f64 / 40.0;
        records.push(
            json!({"kind": "step", "step": step, "epoch": step / 20, "learning_rate": 0.1 * (1.0 - done),
            "loss": 5.5 - done, "contrast_top1": done, "positive_similarity": done, "negative_similarity": 0.1,
            "gradient_scale": 0.9, "gradient_scale_deviation": 0.05, "guaranteed_bound": done - 2.0,
            "paper_bound": done, "timing": {"seconds": 0.1}}),
        );
        if step % 20 == 19 {
            let timing =
                json!({"seconds": 2.0, "data_wait_seconds": 0.0, "images_per_second": 640.0});
            records.push(json!({"kind": "epoch", "epoch": step / 20, "step": step + 1, "loss": 4.5 - done, "timing": timing}));
            records.push(json!({"kind": "knn", "epoch": step / 20, "step": step + 1, "knn_top1": 30.0 + done}));
        }
    }
    records.push(json!({"kind": "end", "step": 40, "finished": true}));
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    lines.join("\n") + "\n"
}

/// Adds the checkpoint of a tiny encoder with random weights.
pub fn write_checkpoint(folder: &Path) {
    let metadata = CheckpointMetadata {
        encoder: EncoderConfig::cifar(Architecture::Resnet18, 2),
        projection_head: ProjectionHeadConfig {
            kind: HeadKind::BatchNormMlp,
            hidden_dim: 0,
            embedding_dim: 8,
        },
        normalization: Normalization::FASHION_MNIST,
        image_size: 14,
        training: json!({"seed": 3}),
        step: 40,
        epoch: 2,
        commit: "0123abc".into(),
        progress: serde_json::Value::Null,
    };
    let (config, head) = (&metadata.encoder, &metadata.projection_head);
    let encoder = Encoder::new(config, head, metadata.normalization, 3, &Device::Cpu).unwrap();
    let tensors = encoder.to_checkpoint().unwrap();
    let checkpoints = folder.join("checkpoints");
    fs::create_dir_all(&checkpoints).unwrap();
    save(
        &checkpoints.join("step-000000040.safetensors"),
        &Checkpoint { metadata, tensors },
    )
    .unwrap();
}

/// Runs `eqco-eval report`.
pub fn report(runs: &[&Path], out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eqco-eval"));
    command
        .arg("report")
        .args(runs)
        .arg("--out")
        .arg(out)
        .args(more);
    command
        .args(["--threads", "1"])
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

/// Standard output and standard error of a command that must succeed.
pub fn succeeded(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// Standard error of a command that must fail without a result.
pub fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Six runs, of which the best has a checkpoint: two seeds of each of three settings, over K and rule.
pub fn write_sweep(folder: &Path) {
    let settings = [
        ("256.0", 4, 44.0),
        ("256.0", 16, 46.0),
        ("\"infonce\"", 4, 38.0),
    ];
    for (alpha, negatives, top1) in settings {
        for seed in [0, 1] {
            let by = 2.0 * seed as f64;
            let name = format!("{}-k{negatives}-s{seed}", alpha.trim_matches('"'));
            let recipe = Recipe {
                alpha,
                negatives,
                seed,
                top1: Some([top1 + by, top1 + by + 5.0]),
                ..Recipe::default()
            };
            write_run(&folder.join(name), recipe);
        }
    }
    write_checkpoint(&folder.join("256.0-k16-s1"));
}
