//! Tests of taking checkpoints.

use std::fs;

use candle_core::{Device, Tensor};
use eqco_models::checkpoint::{CheckpointMetadata, load};
use eqco_models::{Architecture, EncoderConfig, HeadKind, Normalization, ProjectionHeadConfig};
use serde_json::Value;

use super::*;
use crate::config::RunConfig;

fn content(step: u64) -> Checkpoint {
    let metadata = CheckpointMetadata {
        encoder: EncoderConfig::imagenet(Architecture::Resnet18),
        projection_head: ProjectionHeadConfig {
            kind: HeadKind::BatchNormMlp,
            hidden_dim: 0,
            embedding_dim: 8,
        },
        normalization: Normalization::CIFAR10,
        image_size: 8,
        training: Value::Null,
        step,
        epoch: 0,
        commit: "test".to_owned(),
        progress: Value::Null,
    };
    let tensor = Tensor::new(&[step as f32; 100], &Device::Cpu).unwrap();
    Checkpoint {
        metadata,
        tensors: vec![("t".to_owned(), tensor)],
    }
}

fn events(folder: &RunFolder) -> Vec<Value> {
    let text = fs::read_to_string(folder.history()).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn begin(last: usize) -> (tempfile::TempDir, RunFolder, Checkpoints, History) {
    let root = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(root.path()).unwrap();
    let run = RunConfig {
        keep_last_checkpoints: last,
        ..RunConfig::default()
    };
    let checkpoints = Checkpoints::new(&folder, Keep::new(&run, 5), None).unwrap();
    let history = History::open(&folder);
    (root, folder, checkpoints, history)
}

#[test]
fn each_waits_for_the_one_before_and_old_ones_go() {
    let (_root, folder, mut checkpoints, mut history) = begin(2);
    for step in 1..=5 {
        let taken = (step, Reason::Steps);
        checkpoints
            .take(taken, Vec::new(), || Ok(content(step)), &mut history)
            .unwrap();
        assert!(checkpoints.has(step));
    }
    checkpoints.finish(&mut history).unwrap();
    assert!(!checkpoints.is_busy() && checkpoints.has(5) && !checkpoints.has(4));
    let mut left = newest::steps_in(&folder.checkpoints());
    left.sort_unstable();
    assert_eq!(left, [4, 5]);
    assert_eq!(load(&folder.checkpoint(5)).unwrap().metadata.step, 5);
    let events = events(&folder);
    let steps: Vec<_> = events.iter().map(|event| &event["step"]).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5]);
    let bytes = fs::metadata(folder.checkpoint(5)).unwrap().len();
    assert_eq!(events[4]["bytes"], bytes);
    assert_eq!(
        (&events[4]["kind"], &events[4]["reason"]),
        (&"checkpoint".into(), &"steps".into())
    );
}

#[test]
fn one_that_fails_is_told_and_the_next_one_makes_up_for_it() {
    let (_root, folder, mut checkpoints, mut history) = begin(0);
    let mut take = |step, checkpoints: &mut Checkpoints| {
        let taken = (step, Reason::Minutes);
        let copy = || Ok(content(step));
        let done = checkpoints.take(taken, Vec::new(), copy, &mut history);
        done.unwrap();
        checkpoints.finish(&mut history)
    };
    take(1, &mut checkpoints).unwrap();
    // A folder in the place of the file.
    fs::create_dir(folder.checkpoint(2)).unwrap();
    let error = take(2, &mut checkpoints).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.starts_with("the checkpoint of step 2 is not written: "),
        "{text}"
    );
    assert!(
        text.contains("cannot put the finished file in its place"),
        "{text}"
    );
    assert!(!checkpoints.has(2));
    take(3, &mut checkpoints).unwrap();
    let events = events(&folder);
    assert_eq!(events[1]["bytes"], Value::Null);
    assert!(
        events[1]["problem"]
            .as_str()
            .unwrap()
            .contains("step-000000002")
    );
    assert_eq!(events[2]["problem"], Value::Null);
}

#[test]
fn the_metrics_and_a_dropped_run_are_on_the_disk() {
    let (_root, folder, mut checkpoints, mut history) = begin(0);
    let metrics = folder.metrics().unwrap();
    let before = vec![metrics.handle().unwrap()];
    checkpoints
        .take((7, Reason::Stop), before, || Ok(content(7)), &mut history)
        .unwrap();
    // As an error elsewhere does.
    drop(checkpoints);
    let newest = newest_sound(&folder).unwrap().unwrap();
    assert_eq!(newest.checkpoint.metadata.step, 7);
}

#[test]
fn damaged_ones_are_passed_over_and_none_left_is_an_error() {
    let (_root, folder, checkpoints, _) = begin(0);
    drop(checkpoints);
    assert!(newest_sound(&folder).unwrap().is_none());
    let path = |step| folder.checkpoint(step);
    for step in [4, 5, 6] {
        eqco_models::checkpoint::save(&path(step), &content(step)).unwrap();
    }
    let mut bytes = fs::read(path(6)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path(6), bytes).unwrap();
    fs::write(path(5), "").unwrap();
    let newest = newest_sound(&folder).unwrap().unwrap();
    assert_eq!(newest.checkpoint.metadata.step, 4);
    let passed_over: Vec<_> = newest.passed_over.iter().map(|over| &over.path).collect();
    assert_eq!(passed_over, [&path(6), &path(5)]);
    assert!(newest.passed_over[0].problem.contains("CRC-32C"));

    set_aside(&path(6));
    assert!(!path(6).exists());
    assert!(
        folder
            .checkpoints()
            .join("step-000000006.safetensors.damaged")
            .exists()
    );
    fs::write(path(4), "no checkpoint").unwrap();
    let error = newest_sound(&folder).unwrap_err();
    assert!(
        error.to_string().contains("none of the 2 checkpoints"),
        "{error}"
    );
}
