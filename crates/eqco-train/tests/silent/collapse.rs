//! The alarm for collapsed embeddings, in runs that collapse and in runs that do not.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};

use crate::program::{SMALL, output, records};

/// Judged after ten steps, over ten.
const SOON: [&str; 4] = [
    "--set=run.collapse.grace_steps=10",
    "--set=run.collapse.window_steps=10",
    "--set=run.geometry_every_steps=2",
    "--epochs=12",
];

/// Which figures have raised the alarm in a run with these settings, and what was said.
fn alarms(folder: &Path, settings: &[&str]) -> (Vec<String>, String) {
    let (status, _, told) = output(
        folder,
        &[&SMALL[..], &SOON, settings, &["--out=run"]].concat(),
    );
    assert_eq!(status, Some(0), "{told}");
    let lines = records(&folder.join("run"), "collapse");
    let symptoms = lines.iter().map(|line| {
        assert!(line["value"].as_f64().unwrap() < line["threshold"].as_f64().unwrap());
        line["symptom"].as_str().unwrap().to_owned()
    });
    (symptoms.collect(), told)
}

#[test]
fn images_that_are_all_alike_raise_every_alarm_once() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("grey");
    fs::create_dir(&images).unwrap();
    for number in 0..48 {
        let grey = RgbImage::from_pixel(12, 12, Rgb([128; 3]));
        grey.save(images.join(format!("{number:02}.png"))).unwrap();
    }
    let (symptoms, told) = alarms(folder.path(), &["--data=grey", "--limit=0"]);
    assert_eq!(
        symptoms,
        ["effective_rank", "deviation", "contrast_top1"],
        "{told}"
    );
    assert_eq!(told.matches("WARNING  ").count(), 3, "{told}");
    assert!(
        told.contains("WARNING  all images get nearly the same embedding"),
        "{told}"
    );
    assert!(
        told.contains("`eqco-train inspect --scan --grid`"),
        "{told}"
    );
}

#[test]
fn a_healthy_run_raises_none() {
    let folder = tempfile::tempdir().unwrap();
    let (symptoms, told) = alarms(
        folder.path(),
        &["--width=4", "--set=projection_head.embedding_dim=16"],
    );
    assert_eq!(symptoms, [""; 0], "{told}");
    assert!(!told.contains("WARNING"), "{told}");
    let steps = records(&folder.path().join("run"), "step");
    let deviations: Vec<f64> = steps
        .iter()
        .filter_map(|step| step["embedding_deviation"].as_f64())
        .collect();
    assert_eq!(deviations.len(), 18);
    assert!(
        deviations.iter().all(|deviation| *deviation > 0.2),
        "{deviations:?}"
    );
}
