//! The alarm for collapsed embeddings, in runs that collapse and in runs that do not.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};

use crate::program::{SMALL, output, records};

/// Judged after 30 steps of 75, by 15 in a row. Embeddings have eight dimensions here: 2.4 directions are the least.
const SOON: [&str; 7] = [
    "--set=run.collapse.grace_steps=30",
    "--set=run.collapse.window_steps=15",
    "--set=run.collapse.least_rank_share=0.2",
    "--set=run.collapse.least_deviation=0.3",
    "--set=run.geometry_every_steps=3",
    "--set=run.knn_every_epochs=0",
    "--epochs=25",
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
fn a_learning_rate_far_too_high_raises_every_alarm_once() {
    let folder = tempfile::tempdir().unwrap();
    // A head without batch norm, which would keep embeddings apart.
    let settings = ["--lr=1000", "--set=projection_head.kind=mlp"];
    let (mut symptoms, told) = alarms(folder.path(), &settings);
    symptoms.sort();
    assert_eq!(
        symptoms,
        ["contrast_top1", "deviation", "effective_rank"],
        "{told}"
    );
    assert_eq!(told.matches("WARNING  ").count(), 3, "{told}");
    let deviation = "WARNING  all images get nearly the same embedding: deviation by dimension";
    assert!(told.contains(deviation), "{told}");
    let causes = "Usual causes: a learning rate that is too high";
    assert!(told.contains(causes), "{told}");
}

/// The same two runs, judged as without settings: after 200 steps, by 100 in a row.
#[test]
fn the_defaults_tell_a_collapsed_run_from_a_healthy_one() {
    let settings = ["--set=run.knn_every_epochs=0", "--epochs=140", "--out=run"];
    let alarms = |more: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let (status, _, told) = output(folder.path(), &[&SMALL[..], &settings, more].concat());
        assert_eq!(status, Some(0), "{told}");
        records(&folder.path().join("run"), "collapse").len()
    };
    assert_eq!(alarms(&["--lr=1000", "--set=projection_head.kind=mlp"]), 3);
    assert_eq!(alarms(&["--set=encoder.width=8"]), 0);
}

#[test]
fn images_that_are_all_alike_cannot_be_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("grey");
    fs::create_dir(&images).unwrap();
    for number in 0..48 {
        let grey = RgbImage::from_pixel(12, 12, Rgb([128; 3]));
        grey.save(images.join(format!("{number:02}.png"))).unwrap();
    }
    let data = ["--set=data.source=grey", "--set=data.limit=0"];
    let (symptoms, told) = alarms(folder.path(), &data);
    assert!(symptoms.contains(&"contrast_top1".to_owned()), "{told}");
    let finding = "WARNING  queries find their own image no better than by guessing";
    assert!(told.contains(finding), "{told}");
    assert!(told.contains("blank images"), "{told}");
}

#[test]
fn a_healthy_run_raises_none() {
    let folder = tempfile::tempdir().unwrap();
    let (symptoms, told) = alarms(folder.path(), &["--set=encoder.width=8"]);
    assert_eq!(symptoms, [""; 0], "{told}");
    assert!(!told.contains("WARNING"), "{told}");
    let steps = records(&folder.path().join("run"), "step");
    let of = |key: &str| -> Vec<f64> {
        let values = steps.iter().filter_map(|step| step[key].as_f64());
        values.collect()
    };
    let (deviations, ranks) = (of("embedding_deviation"), of("effective_rank"));
    assert_eq!((deviations.len(), ranks.len()), (25, 25));
    assert!(
        deviations.iter().all(|deviation| *deviation > 0.4),
        "{deviations:?}"
    );
    assert!(ranks.iter().all(|rank| *rank > 2.5), "{ranks:?}");
}
