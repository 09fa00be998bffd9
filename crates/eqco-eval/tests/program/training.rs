//! `eqco-eval finetune` and `eqco-eval semi`.

use std::fs;
use std::path::Path;
use std::process::Output;

use eqco_data::{Image, encode};
use eqco_models::checkpoint;
use serde_json::{Value, json};

use super::{failed, program, run_folder, succeeded, training};

/// Two epochs on 60 images, with one thread, since sums depend on their number.
const SHORT: [&str; 10] = [
    "--limit",
    "60",
    "--epochs",
    "2",
    "--least-steps",
    "0",
    "--batch-size",
    "16",
    "--threads",
    "1",
];

fn run(command: &str, run: &Path, more: &[&str]) -> Output {
    program(&[&[command, run.to_str().unwrap()], &SHORT[..], more].concat())
}

/// Standard output and the lines of standard error.
fn trained(output: Output) -> (String, Vec<String>) {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let lines = stderr.lines().map(str::to_owned).collect();
    (String::from_utf8(output.stdout).unwrap(), lines)
}

fn parsed(output: Output) -> Value {
    serde_json::from_str(&trained(output).0).unwrap()
}

#[test]
fn finetune_tells_both_starts_and_leaves_a_checkpoint_that_others_can_measure() {
    let (folder, out) = (run_folder(3, training()), tempfile::tempdir().unwrap());
    let out = out.path().join("new/tuned");
    let flags = ["--from-scratch", "--out", out.to_str().unwrap()];
    let (table, lines) = trained(run("finetune", folder.path(), &flags));
    assert!(table.starts_with("whole network trained with labels, 2 epochs, batch 16: "));
    let rows: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(rows[0].trim(), "top-1 %");
    let figure = |row: &str| row.split_whitespace().last().unwrap().to_owned();
    // The checkpoint is that of the seed: both starts are one.
    assert_eq!(figure(rows[1]), figure(rows[2]));
    assert!(rows[1].starts_with("fine-tuned") && rows[2].starts_with("from scratch"));
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(
        lines[1].starts_with("fine-tuned, epoch 2/2  loss "),
        "{lines:?}"
    );
    assert!(
        lines[1].contains(&format!("test top-1 {} %", figure(rows[1]))),
        "{lines:?}"
    );

    let text = fs::read_to_string(out.join("finetune.json")).unwrap();
    let result: Value = serde_json::from_str(&text).unwrap();
    let tuned = &result["results"]["finetuned"];
    assert_eq!(tuned["plan"]["steps"], 6);
    assert_eq!(tuned["protocol"]["config"]["batch_size"], 16);
    assert_eq!(tuned["epochs"].as_array().unwrap().len(), 2);
    assert_eq!(tuned["top1"], result["results"]["from_scratch"]["top1"]);

    let path = out.join("checkpoints/step-000000006.safetensors");
    let saved = checkpoint::load(&path).unwrap();
    let shape = |name: &str| {
        let found = saved.tensors.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("{name}")).1.dims().to_vec()
    };
    assert_eq!(shape("classifier.weight"), [10, 16]);
    assert_eq!(shape("classifier.bias"), [10]);
    assert_eq!(saved.metadata.step, 6);
    let done = &saved.metadata.training["finetune"];
    assert_eq!(done["class_names"].as_array().unwrap().len(), 10);
    let knn = [
        "knn",
        out.to_str().unwrap(),
        "--limit",
        "60",
        "--k",
        "5",
        "--untrained",
    ];
    let table = succeeded(program(&knn));
    assert!(
        table.contains("pre-trained") && table.contains("untrained"),
        "{table}"
    );

    // The folder is taken now.
    let before = fs::read(&path).unwrap();
    let stderr = failed(run("finetune", folder.path(), &flags));
    assert!(
        stderr.contains("found checkpoints in it") && stderr.contains("hint: "),
        "{stderr}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn the_seed_repeats_a_training_and_another_one_differs() {
    let folder = run_folder(3, training());
    let result = |seed: &str| {
        let json = parsed(run("finetune", folder.path(), &["--seed", seed, "--json"]));
        json["results"]["finetuned"].clone()
    };
    let first = result("1");
    assert_eq!(result("1"), first);
    assert_ne!(result("2")["epochs"], first["epochs"]);
}

#[test]
fn semi_trains_and_probes_on_the_same_share() {
    let folder = run_folder(3, training());
    let (table, lines) = trained(run("semi", folder.path(), &["--share", "0.1,0.5"]));
    let rows: Vec<&str> = table.lines().collect();
    assert!(
        rows[0].ends_with("60 training and 60 test images"),
        "{table}"
    );
    assert!(rows[3].starts_with("0.1 of the labels (10)"), "{table}");
    assert!(rows[4].starts_with("0.5 of the labels (30)"), "{table}");
    assert!(table.ends_with("no linear probe where no class has two labelled images\n"));
    assert_eq!(lines.len(), 4, "{lines:?}");

    let flags = ["--share", "0.5", "--from-scratch", "--json"];
    let json = parsed(run("semi", folder.path(), &flags));
    let result = &json["results"]["0.5"];
    assert_eq!(
        (&result["share"], &result["label_count"]),
        (&json!(0.5), &json!(30))
    );
    // Both have learnt from the same images.
    let [tuned, linear] = [&result["finetuned"], &result["linear"]];
    let sample = |result: &Value| result["protocol"]["train"].clone();
    assert_eq!(
        sample(tuned)["origin"]["data"],
        sample(linear)["origin"]["data"]
    );
    assert_eq!(
        (&sample(tuned)["count"], &sample(linear)["count"]),
        (&json!(30), &json!(30))
    );
    assert_eq!(tuned["top1"], result["from_scratch"]["top1"]);
}

#[test]
fn settings_and_data_that_cannot_work_are_refused() {
    let folder = run_folder(3, training());
    for share in ["0", "2", "0.1,nan"] {
        let stderr = failed(run("semi", folder.path(), &["--share", share]));
        assert!(
            stderr.contains("share: expected a number above 0 and at most 1"),
            "{stderr}"
        );
    }
    let stderr = failed(run("finetune", folder.path(), &["--lr", "0"]));
    assert!(
        stderr.contains("lr: expected a finite number above 0, got 0"),
        "{stderr}"
    );
    let stderr = failed(run("finetune", folder.path(), &["--lr", "1e30"]));
    assert!(
        stderr.contains("training diverged") && stderr.contains("lower --lr"),
        "{stderr}"
    );

    // What a failed attempt leaves does not stop the next one.
    let out = tempfile::tempdir().unwrap();
    let into = ["--out", out.path().to_str().unwrap()];
    failed(run(
        "finetune",
        folder.path(),
        &[&into[..], &["--lr", "1e30"]].concat(),
    ));
    trained(run("finetune", folder.path(), &into));

    let images = tempfile::tempdir().unwrap();
    for part in ["train", "test"] {
        fs::create_dir(images.path().join(part)).unwrap();
        let image = Image::new(14, 14, vec![9; 14 * 14 * 3]).unwrap();
        let path = images.path().join(part).join("a.png");
        fs::write(path, encode::png(&image).unwrap()).unwrap();
    }
    let data = ["--data", images.path().to_str().unwrap()];
    for command in ["finetune", "semi"] {
        let stderr = failed(run(command, folder.path(), &data));
        assert!(
            stderr.contains("have no labels") && stderr.contains("hint: "),
            "{stderr}"
        );
    }
    let unknown = run_folder(3, json!({"data": {"source": "embedded"}}));
    let stderr = failed(run("finetune", unknown.path(), &["--from-scratch"]));
    assert!(stderr.contains("leave --from-scratch away"), "{stderr}");
}
