//! `eqco-eval neighbors`.

use std::fs;
use std::path::{Path, PathBuf};

use eqco_data::decode::read_file;
use eqco_data::{Split, encode, open};
use serde_json::Value;

use super::{failed, program, run_folder, succeeded, training};

/// A folder with image 7 of the embedded training images and one of a plane.
fn queries() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let known = open("embedded", Split::Train).unwrap().image(7).unwrap();
    let plane = eqco_data::Image::new(40, 30, vec![200; 40 * 30 * 3]).unwrap();
    let write = |name: &str, image| {
        let path = folder.path().join(name);
        fs::write(&path, encode::png(image).unwrap()).unwrap();
        path
    };
    let (known, plane) = (write("known.png", &known), write("plane.png", &plane));
    (folder, known, plane)
}

fn neighbors(run: &Path, more: &[&str]) -> std::process::Output {
    program(&[&["neighbors", run.to_str().unwrap()], more].concat())
}

#[test]
fn a_training_image_is_nearest_to_itself_and_the_picture_shows_it() {
    let (run, (folder, known, plane)) = (run_folder(3, training()), queries());
    let out = folder.path().join("near.png");
    let [known, plane, out_text] = [&known, &plane, &out].map(|path| path.to_str().unwrap());
    let arguments = [
        known, plane, "--limit", "200", "--k", "3", "--out", out_text,
    ];
    let text = succeeded(neighbors(run.path(), &arguments));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], known);
    assert!(lines[1].starts_with("rank  similarity  class"), "{text}");
    let first: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!(first[..2], ["1", "1.0000"], "{text}");
    assert_eq!(lines[6], plane);
    assert!(
        lines[12].contains("200 training images; picture in "),
        "{text}"
    );

    // 14 pixels become 98; a query and three neighbours in each of two rows.
    let picture = read_file(&out).unwrap();
    assert_eq!((picture.width(), picture.height()), (4 * 108 - 4, 2 * 108));
    let at = |x: usize, y: usize| &picture.pixels()[3 * (y * picture.width() + x)..][..3];
    for (x, y) in [(0, 0), (7, 7), (50, 41), (97, 97)] {
        assert_eq!(
            at(3 + x, 3 + y),
            at(111 + x, 3 + y),
            "query and first neighbour"
        );
    }
    assert_eq!(at(0, 0), [0, 114, 178], "the query's frame");
    assert_eq!(at(108, 0), [255; 3], "neighbours have none");

    let json = succeeded(neighbors(
        run.path(),
        &[&arguments[..], &["--json"]].concat(),
    ));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["train"]["count"], 200);
    assert_eq!(json["queries"][0]["query"], known);
    let found = json["queries"][0]["neighbours"].as_array().unwrap();
    let similarities: Vec<f64> = found
        .iter()
        .map(|n| n["similarity"].as_f64().unwrap())
        .collect();
    assert!((similarities[0] - 1.0).abs() < 1e-5 && similarities.is_sorted_by(|a, b| a >= b));
    assert!(
        lines[2].ends_with(found[0]["image"].as_str().unwrap()),
        "{text}"
    );
    assert!(
        lines[2].contains(found[0]["class"].as_str().unwrap()),
        "{text}"
    );
    assert_eq!(json["checkpoint"]["metadata"]["step"], 780);
}

#[test]
fn what_is_no_image_or_no_picture_is_refused_and_nothing_written() {
    let (run, (folder, known, _)) = (run_folder(3, training()), queries());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("text.jpg"), "not an image").unwrap();
    let (known, out) = (known.to_str().unwrap(), path("near.png"));
    let refused = |more: &[&str]| {
        let arguments = [&["--limit", "20", "--out", &out], more].concat();
        let stderr = failed(neighbors(run.path(), &arguments));
        assert!(!Path::new(&out).exists());
        stderr
    };
    let stderr = refused(&[known, &path("text.jpg")]);
    assert!(
        stderr.contains("text.jpg: neither PNG nor JPEG"),
        "{stderr}"
    );
    let stderr = refused(&[&path("absent.png")]);
    assert!(
        stderr.contains("cannot read ") && stderr.contains("absent.png"),
        "{stderr}"
    );
    let stderr = refused(&[folder.path().to_str().unwrap()]);
    assert!(
        stderr.contains("expected a JPEG, PNG or WebP file, found a folder"),
        "{stderr}"
    );
    for k in ["0", "21"] {
        let stderr = refused(&[known, "--k", k]);
        assert!(
            stderr.contains("k: expected 1 to 20, the number of training images"),
            "{stderr}"
        );
    }
    let arguments = [known, "--limit", "20", "--out", &path("near.jpg")];
    let stderr = failed(neighbors(run.path(), &arguments));
    assert!(stderr.contains("expected a name that ends in .png") && stderr.contains("hint: "));
}
