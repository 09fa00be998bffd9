//! `eqco-eval contrast`: one encoder at several numbers of negatives.

use std::path::Path;

use eqco_models::checkpoint::{load, save};
use serde_json::{Value, json};

use super::{checkpoint_path, failed, program, run_folder, succeeded};

/// A run of SiMo on views of 14 pixels in batches of 32, with this loss.
fn training(loss: Value) -> Value {
    let recipe = json!({"name": "fashion", "image_size": 14});
    let data = json!({"source": "embedded", "recipe": recipe, "loader": {"batch_size": 32}});
    json!({"seed": 3, "data": data, "loss": loss})
}

/// Gives the checkpoint a momentum encoder with the query encoder's own weights.
fn add_momentum_encoder(run: &Path) {
    let path = checkpoint_path(run);
    let mut checkpoint = load(&path).unwrap();
    let named = checkpoint.tensors.clone().into_iter();
    let copies = named.filter_map(|(name, tensor)| {
        let name = name.strip_prefix("encoder.")?;
        Some((format!("momentum_encoder.{name}"), tensor))
    });
    checkpoint.tensors.extend(copies);
    save(&path, &checkpoint).unwrap();
}

fn contrast(run: &Path, more: &[&str]) -> std::process::Output {
    program(&[&["contrast", run.to_str().unwrap()], more].concat())
}

#[test]
fn the_loss_rises_with_the_negatives_to_that_of_all_others() {
    let run = run_folder(3, training(json!({"temperature": 0.2, "alpha": 256.0})));
    add_momentum_encoder(run.path());
    let arguments = ["--negatives", "1,8,30", "--batches", "3", "--draws", "5"];
    let text = succeeded(contrast(
        run.path(),
        &[&arguments[..], &["--json"]].concat(),
    ));
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["images"], 96);
    assert_eq!(
        found["computed_on"],
        json!({"device": "cpu", "backend": "portable"})
    );
    let all = &found["with_all"];
    assert_eq!(all["negative_count"], 31);
    let at = found["at_counts"].as_array().unwrap();
    let number = |entry: &Value, key: &str| entry[key].as_f64().unwrap();
    for (key, gap) in [
        ("loss", "expected_loss_gap"),
        ("gradient_scale", "expected_gradient_scale_gap"),
    ] {
        let mut values: Vec<f64> = at.iter().map(|entry| number(entry, key)).collect();
        values.push(number(all, key));
        assert!(values.is_sorted(), "{key}: {values:?}");
        let gaps: Vec<f64> = at.iter().map(|entry| number(entry, gap)).collect();
        assert!(gaps.is_sorted_by(|a, b| a > b), "{gap}: {gaps:?}");
        // With 30 of 31 keys theory is next to exact.
        let measured = values[3] - values[2];
        assert!(
            (measured - gaps[2]).abs() < 0.01,
            "{key}: {measured} {gaps:?}"
        );
    }
    let table = succeeded(contrast(run.path(), &arguments));
    assert!(
        table.starts_with("alpha 256, temperature 0.2, 96 images of "),
        "{table}"
    );
    assert_eq!(table.lines().count(), 9, "{table}");
}

#[test]
fn what_cannot_be_contrasted_is_refused() {
    let run = run_folder(3, training(json!({"temperature": 0.2, "alpha": "infonce"})));
    let stderr = failed(contrast(run.path(), &[]));
    assert!(
        stderr.contains("give the number to hold fixed as --alpha"),
        "{stderr}"
    );
    let stderr = failed(contrast(run.path(), &["--alpha", "64"]));
    assert!(stderr.contains("has no momentum encoder"), "{stderr}");
    add_momentum_encoder(run.path());
    let stderr = failed(contrast(
        run.path(),
        &["--alpha", "64", "--negatives", "32"],
    ));
    assert!(stderr.contains("expected 1 to 31"), "{stderr}");
    let stderr = failed(contrast(
        run.path(),
        &["--alpha", "64", "--negatives", "4", "--batch-size", "5000"],
    ));
    assert!(stderr.contains("lower --batch-size"), "{stderr}");
}
