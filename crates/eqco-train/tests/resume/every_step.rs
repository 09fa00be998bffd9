//! A run of 20 steps, resumed from the checkpoint of every one of them.
//!
//! Every run is as after kill -9: its folder holds the metrics and events of all 20 steps and the checkpoint of one.

use std::path::Path;

use super::images;
use super::runs::{Left, TINY, killed_after, run};

const STEPS: u64 = 20;

/// Trains once without a stop, and once more from every step on; everything that is left must be the same.
fn same_from_every_step(root: &Path, name: &str, settings: &[&str]) {
    let whole = root.join(name);
    let out = format!("--out={}", whole.display());
    let every = ["--set=run.checkpoint_every_steps=1", &out];
    let position = run(&[&TINY, settings, &every].concat()).unwrap();
    assert_eq!((position.next_step, position.is_finished()), (STEPS, true));
    let expected = Left::of(&whole, STEPS);
    let expected_without_workers = Left::of(&whole, STEPS).without_workers();
    let mut epochs = expected
        .metrics
        .iter()
        .filter(|line| line["kind"] == "epoch");
    assert_eq!(epochs.next_back().unwrap()["skipped_images"], 2, "{name}");
    for step in 1..=STEPS {
        let folder = root.join(format!("{name}-{step}"));
        killed_after(&whole, step, &folder);
        let resume = format!("--resume={}", folder.display());
        let what = format!("{name} from step {step}");
        if step % 2 == 0 {
            run(&[&resume]).unwrap();
            Left::of(&folder, STEPS).assert_is(&expected, &what);
        } else {
            // Another number of the loader's threads, of which nothing but the setting may be seen.
            run(&[&resume, "--set=data.loader.workers=3"]).unwrap();
            let left = Left::of(&folder, STEPS).without_workers();
            left.assert_is(&expected_without_workers, &what);
        }
    }
}

/// Every precision and source of images, with the whole batch at once and in two parts.
fn in_every_form(method: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    let folder = format!("--data={}", images::folder(root.path()).display());
    let shards = format!("--data={}", images::shards(root.path()).display());
    for precision in ["f32", "bf16"] {
        for (source, data) in [("folder", &folder), ("shards", &shards)] {
            for micro_batch in ["0", "4"] {
                let name = format!("{precision}-{source}-{micro_batch}");
                let precision = format!("--precision={precision}");
                let micro_batch = format!("--micro-batch={micro_batch}");
                let form = [&precision[..], data, &micro_batch];
                same_from_every_step(root.path(), &name, &[method, &form].concat());
            }
        }
    }
}

#[test]
fn simo() {
    in_every_form(&["--method=simo", "--negatives=4"]);
}

/// The queue of 20 keys is not a multiple of the batch, so that its cursor is somewhere else at every step.
#[test]
fn moco_v2() {
    in_every_form(&["--method=moco_v2", "--negatives=20"]);
}

#[test]
fn simclr() {
    in_every_form(&["--method=simclr", "--negatives=0"]);
}
