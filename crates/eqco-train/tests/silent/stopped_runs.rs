//! A run that diverges stops with a file that tells why, and the step can be done again.

use std::fs;

use eqco_train::nonfinite::Dump;

use crate::program::{SMALL, output, records};

/// Finite weights of about 1e28 after one step, whose squares f32 does not hold.
const DIVERGING: [&str; 4] = [
    "--out=run",
    "--lr=1e30",
    "--epochs=2",
    "--set=run.checkpoint_every_steps=1",
];

#[test]
fn a_run_that_diverges_leaves_a_dump_and_replay_shows_the_same_step() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let (status, _, told) = output(
        folder.path(),
        &[&SMALL[..], &DIVERGING, &["--seed=3"]].concat(),
    );
    assert_eq!(status, Some(1), "{told}");
    let path = "run/nonfinite-step-000000001.json";
    assert!(
        told.contains("of step 1 ") && told.contains("training has diverged"),
        "{told}"
    );
    assert!(
        told.contains(&format!(
            "hint: `eqco-train replay {path}` does this step again"
        )),
        "{told}"
    );

    let dump = Dump::read(&folder.path().join(path)).unwrap();
    assert_eq!((dump.step, dump.epoch, dump.batch, dump.seed), (1, 0, 1, 3));
    assert_eq!((dump.indices.len(), dump.files.len()), (16, 16));
    assert_eq!(
        dump.checkpoint.as_deref(),
        Some("checkpoints/step-000000001.safetensors")
    );
    let lines = records(&run, "nonfinite");
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (&lines[0]["step"], &lines[0]["action"]),
        (&1.into(), &"stop".into())
    );
    assert_eq!(lines[0]["dump"], "nonfinite-step-000000001.json");
    let steps = records(&run, "step");
    assert_eq!(steps.len(), 1);
    assert!(steps[0]["gradient_norm"].as_f64().unwrap() > 0.0);

    let (status, shown, told) = output(folder.path(), &["replay", path]);
    assert_eq!(status, Some(0), "{shown}{told}");
    assert!(
        told.contains("from     run/checkpoints/step-000000001.safetensors, 0 steps before"),
        "{told}"
    );
    assert!(
        shown.contains("the same as in the dump, to the bit"),
        "{shown}"
    );
    for group in ["backbone.conv1", "backbone.layer4", "projection_head"] {
        let line = shown.lines().find(|line| line.starts_with(group));
        let norm = line.and_then(|line| line.split_whitespace().next_back());
        let norm: f64 = norm.unwrap().parse().unwrap();
        // Their squares are sums that f32 does not hold.
        assert!(norm > 1e25 && norm.is_finite(), "{shown}");
    }
    assert!(
        shown.contains("first tensor that is not finite: "),
        "{shown}"
    );

    // Without the checkpoint: from the initial weights, one step on.
    fs::remove_file(run.join("checkpoints/step-000000001.safetensors")).unwrap();
    let (status, shown, told) = output(folder.path(), &["replay", path]);
    assert_eq!(status, Some(0), "{shown}{told}");
    assert!(
        told.contains("beginning at the initial weights") && told.contains("step     0: loss "),
        "{told}"
    );
    assert!(
        shown.contains("the same as in the dump, to the bit"),
        "{shown}"
    );

    // Another loss than the recorded one is said.
    let mut other = dump.clone();
    (other.loss, other.indices[0]) = (1.5.into(), 7);
    let text = serde_json::to_string(&other).unwrap();
    fs::write(run.join("other.json"), text).unwrap();
    let (status, shown, _) = output(folder.path(), &["replay", "run/other.json"]);
    assert_eq!(status, Some(1), "{shown}");
    assert!(
        shown.contains("other than in the dump: loss: expected 1.5, found "),
        "{shown}"
    );
    assert!(
        shown.contains("other than in the dump: the images of the batch are others"),
        "{shown}"
    );

    other.config.data.limit = 32;
    fs::write(
        run.join("other.json"),
        serde_json::to_string(&other).unwrap(),
    )
    .unwrap();
    let (status, _, told) = output(folder.path(), &["replay", "run/other.json"]);
    assert_eq!(status, Some(1));
    assert!(
        told.contains("expected 48 images in 3 steps an epoch")
            && told.contains("found 32 images in 2"),
        "{told}"
    );
}

#[test]
fn skipped_steps_are_counted_dumped_and_skipped_again_on_the_way_to_a_replay() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let skip = [
        "--set=run.on_nonfinite=skip",
        "--set=run.most_skipped_steps=2",
    ];
    let (status, _, told) = output(folder.path(), &[&SMALL[..], &DIVERGING, &skip].concat());
    assert_eq!(status, Some(1), "{told}");
    assert!(
        told.contains("the step is skipped (1 of at most 2 so far)"),
        "{told}"
    );
    assert!(
        told.contains("3 steps were not finite, and run.most_skipped_steps is 2"),
        "{told}"
    );
    let counts: Vec<_> = records(&run, "nonfinite")
        .iter()
        .map(|line| line["skipped_steps"].clone())
        .collect();
    assert_eq!(counts, [1, 2, 3]);

    let (status, shown, told) = output(
        folder.path(),
        &["replay", "run/nonfinite-step-000000003.json"],
    );
    assert_eq!(status, Some(0), "{shown}{told}");
    fs::remove_file(run.join("checkpoints/step-000000003.safetensors")).unwrap();
    fs::remove_file(run.join("checkpoints/step-000000002.safetensors")).unwrap();
    let (status, shown, told) = output(
        folder.path(),
        &["replay", "run/nonfinite-step-000000003.json"],
    );
    assert_eq!(status, Some(0), "{shown}{told}");
    assert!(told.contains("step     2: skipped again: "), "{told}");
    assert!(
        shown.contains("the same as in the dump, to the bit"),
        "{shown}"
    );
}

#[test]
fn weights_that_an_update_has_spoiled_never_become_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let infinite = [
        "--out=run",
        "--lr=1e300",
        "--epochs=1",
        "--set=run.checkpoint_every_steps=1",
    ];
    let (status, _, told) = output(folder.path(), &[&SMALL[..], &infinite].concat());
    assert_eq!(status, Some(1), "{told}");
    assert!(
        told.contains("expected finite numbers, found NaN or infinity after step 1"),
        "{told}"
    );
    let files = fs::read_dir(folder.path().join("run/checkpoints"))
        .unwrap()
        .count();
    assert_eq!(files, 0);
}

#[test]
fn what_is_no_dump_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (status, _, told) = output(folder.path(), &["replay", "none.json"]);
    assert_eq!(status, Some(1));
    assert!(
        told.starts_with("error: none.json: cannot be read; give "),
        "{told}"
    );
    assert_eq!(told.matches("No such file").count(), 1, "{told}");
    fs::write(folder.path().join("a.json"), "{}").unwrap();
    let (_, _, told) = output(folder.path(), &["replay", "a.json"]);
    assert!(
        told.contains("expected a dump of a step, format 1, found JSON without a format"),
        "{told}"
    );
}
