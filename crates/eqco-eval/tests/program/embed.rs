//! `eqco-eval embed`.

use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use eqco_data::{Image, encode};
use serde_json::json;

use super::{failed, program, run_folder, succeeded, training};

fn embed(run: &Path, out: &Path, more: &[&str]) -> std::process::Output {
    let places = [run.to_str().unwrap(), "--out", out.to_str().unwrap()];
    program(&[&["embed"], &places[..], more].concat())
}

fn matrix(path: &Path) -> Vec<Vec<f32>> {
    Tensor::read_npy(path).unwrap().to_vec2().unwrap()
}

#[test]
fn the_formats_hold_the_same_rows() {
    let (run, folder) = (run_folder(3, training()), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name);
    let limit = ["--limit", "30"];
    let line = succeeded(embed(run.path(), &path("a.npy"), &limit));
    assert!(line.contains("30 images of 16 numbers in "), "{line}");
    assert!(
        line.contains("a.npy and ") && line.ends_with("a.labels.npy\n"),
        "{line}"
    );
    let rows = matrix(&path("a.npy"));
    assert_eq!((rows.len(), rows[0].len()), (30, 16));
    let labels = Tensor::read_npy(path("a.labels.npy")).unwrap();
    let labels = labels.to_vec1::<i64>().unwrap();
    assert_eq!((labels.len(), labels.iter().sum::<i64>()), (30, 3 * 45));

    succeeded(embed(run.path(), &path("a.safetensors"), &limit));
    let tensors = candle_core::safetensors::load(path("a.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(tensors["representations"].to_vec2::<f32>().unwrap(), rows);
    assert_eq!(tensors["labels"].to_vec1::<i64>().unwrap(), labels);

    succeeded(embed(run.path(), &path("a.parquet"), &limit));
    let table = fs::read(path("a.parquet")).unwrap();
    assert!(table.starts_with(b"PAR1") && table.ends_with(b"PAR1"));
    // The last column of the one row group is plain, and the footer begins behind it.
    let footer = u32::from_le_bytes(table[table.len() - 8..][..4].try_into().unwrap());
    let end = table.len() - 8 - footer as usize;
    let values = table[end - 30 * 16 * 4..end].chunks_exact(4);
    let values: Vec<f32> = values
        .map(|v| f32::from_le_bytes(v.try_into().unwrap()))
        .collect();
    assert_eq!(values, rows.concat());
}

#[test]
fn embeddings_have_unit_length_and_the_test_part_is_another() {
    let (run, folder) = (run_folder(3, training()), tempfile::tempdir().unwrap());
    // A name that says nothing.
    let path = folder.path().join("rows");
    let arguments = [
        "--embeddings",
        "--split",
        "test",
        "--limit",
        "20",
        "--out-format",
        "npy",
    ];
    let line = succeeded(embed(run.path(), &path, &arguments));
    assert!(line.contains("(test): 20 images of 8 numbers"), "{line}");
    for row in matrix(&path) {
        let length: f32 = row.iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    assert!(folder.path().join("rows.labels.npy").exists());
}

#[test]
fn images_without_classes_are_embedded_too() {
    let (run, images) = (run_folder(3, json!({})), tempfile::tempdir().unwrap());
    for value in 0..5u8 {
        let image = Image::new(14, 14, vec![50 * value; 14 * 14 * 3]).unwrap();
        let path = images.path().join(format!("{value}.png"));
        fs::write(path, encode::png(&image).unwrap()).unwrap();
    }
    let out = images.path().join("rows.npy");
    let data = ["--data", images.path().to_str().unwrap()];
    succeeded(embed(run.path(), &out, &data));
    assert_eq!(matrix(&out).len(), 5);
    assert!(!images.path().join("rows.labels.npy").exists());
    // There is no test part.
    let stderr = failed(embed(
        run.path(),
        &out,
        &[&data[..], &["--split", "test"]].concat(),
    ));
    assert!(stderr.contains("a folder test/ or val/"), "{stderr}");
    assert_eq!(matrix(&out).len(), 5, "the older file is untouched");
}

#[test]
fn places_that_cannot_be_written_are_refused_before_the_work() {
    let (run, folder) = (run_folder(3, training()), tempfile::tempdir().unwrap());
    let refused = |out: &Path| failed(embed(run.path(), out, &[]));
    let stderr = refused(&folder.path().join("rows"));
    assert!(
        stderr.contains("found no extension") && stderr.contains("hint: "),
        "{stderr}"
    );
    let stderr = refused(&folder.path().join("absent/rows.npy"));
    assert!(
        stderr.contains("found no such folder") && stderr.contains("hint: "),
        "{stderr}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
