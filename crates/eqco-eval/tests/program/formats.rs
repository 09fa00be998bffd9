//! `--format` beside `--data`, and the format that a run was trained on.

use std::fs;
use std::path::Path;

use eqco_data::Image;
use eqco_data::encode;
use serde_json::json;
use tar::{Builder, Header};

use super::{failed, program, run_folder, succeeded, training};

/// A shard of images in two classes.
fn shard(images: u8) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for number in 0..images {
        let image = Image::new(4, 4, vec![number * 20; 48]).unwrap();
        let png = encode::png(&image).unwrap();
        let label = (number % 2).to_string();
        for (extension, content) in [("png", png.as_slice()), ("cls", label.as_bytes())] {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            let name = format!("{number}.{extension}");
            builder.append_data(&mut header, name, content).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// A folder in which an image lies beside shards, so that these are read only where they are asked for.
fn mixed_folder() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let image = encode::png(&Image::new(4, 4, vec![9; 48]).unwrap()).unwrap();
    for (name, content) in [
        ("train-0.tar", shard(5)),
        ("val-0.tar", shard(3)),
        ("1.png", image),
    ] {
        fs::write(root.path().join(name), content).unwrap();
    }
    root
}

fn embed(run: &Path, more: &[&str]) -> std::process::Output {
    let out = run.join("out.npy");
    let places = [run.to_str().unwrap(), "--out", out.to_str().unwrap()];
    program(&[&["embed"], &places[..], more].concat())
}

#[test]
fn the_format_asked_for_is_read() {
    let (run, images) = (run_folder(3, training()), mixed_folder());
    let data = ["--data", images.path().to_str().unwrap()];
    let line = succeeded(embed(run.path(), &data));
    assert!(line.contains("1 images of 16 numbers in "), "{line}");
    let shards = [&data[..], &["--format", "shards"]].concat();
    let line = succeeded(embed(run.path(), &shards));
    assert!(line.contains("5 images of 16 numbers in "), "{line}");
    let line = succeeded(program(
        &[
            &["knn", run.path().to_str().unwrap(), "--k", "2"],
            &shards[..],
        ]
        .concat(),
    ));
    assert!(line.contains("5 training and 3 test images"), "{line}");

    let wrong = [&data[..], &["--format", "cifar10"]].concat();
    let message = failed(embed(run.path(), &wrong));
    assert!(
        message.contains("expected format cifar10: a folder with data_batch_1.bin"),
        "{message}"
    );
    assert!(message.contains("found folder"), "{message}");
    assert!(
        message.contains("hint: folders that can be read"),
        "{message}"
    );
}

#[test]
fn the_format_of_the_runs_training_is_read_again() {
    let images = mixed_folder();
    let source = images.path().to_str().unwrap();
    for (format, count) in [("shards", 5), ("folder", 1), ("auto", 1)] {
        let data = json!({"source": source, "format": format});
        let run = run_folder(3, json!({"seed": 3, "data": data}));
        let line = succeeded(embed(run.path(), &[]));
        let expected = format!("{count} images of 16 numbers in ");
        assert!(line.contains(&expected), "{format}: {line}");
    }
}

#[test]
fn a_format_that_there_is_not_is_answered_with_those_that_there_are() {
    let run = run_folder(3, training());
    let output = embed(run.path(), &["--data", "x", "--format", "tar"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        message.contains(
            "one of packed, idx, cifar10, cifar100, imagenet-tar, shards, parquet, folder"
        ),
        "{message}"
    );
}
