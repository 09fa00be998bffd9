//! What may be another setting when a run goes on, and what may not.

use std::fs;
use std::path::{Path, PathBuf};

use eqco_train::config::TrainConfig;
use eqco_train::hint;
use tempfile::TempDir;

use super::images;
use super::runs::{Left, TINY, history, killed_after, metrics, run};

/// A run that was killed after step 8, with the run that was not, and its command.
fn killed() -> (TempDir, PathBuf, PathBuf, Vec<String>) {
    let root = tempfile::tempdir().unwrap();
    let data = format!("--data={}", images::folder(root.path()).display());
    let mut command: Vec<String> = TINY.map(str::to_owned).into();
    command.extend([
        data,
        "--negatives=4".to_owned(),
        "--set=run.checkpoint_every_steps=4".to_owned(),
    ]);
    let (whole, folder) = (root.path().join("whole"), root.path().join("killed"));
    with(&command, &[&out(&whole)]).unwrap();
    killed_after(&whole, 8, &folder);
    (root, whole, folder, command)
}

fn out(folder: &Path) -> String {
    format!("--out={}", folder.display())
}

fn resume(folder: &Path) -> String {
    format!("--resume={}", folder.display())
}

fn with(command: &[String], more: &[&str]) -> anyhow::Result<()> {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    run(&[&command[..], more].concat()).map(|_| ())
}

#[test]
fn the_same_command_goes_on_where_it_was_and_begins_where_nothing_is() {
    let (root, whole, folder, command) = killed();
    let expected = Left::of(&whole, 20);
    with(&command, &[&out(&folder), "--resume=auto"]).unwrap();
    Left::of(&folder, 20).assert_is(&expected, "auto, of a killed run");
    // Once more, when everything is done.
    with(&command, &[&out(&folder), "--resume=auto"]).unwrap();
    Left::of(&folder, 20).assert_is(&expected, "auto, of a finished run");

    let fresh = root.path().join("fresh");
    with(&command, &[&out(&fresh), "--resume=auto"]).unwrap();
    Left::of(&fresh, 20).assert_is(&expected, "auto, where nothing was");

    // Killed before its first checkpoint, in the middle of a line.
    let early = root.path().join("early");
    killed_after(&whole, 8, &early);
    fs::remove_dir_all(early.join("checkpoints")).unwrap();
    let text = fs::read_to_string(early.join("metrics.jsonl")).unwrap();
    fs::write(early.join("metrics.jsonl"), &text[..text.len() / 3]).unwrap();
    let error = run(&[&resume(&early)]).unwrap_err();
    assert!(
        error.to_string().ends_with("has no checkpoint yet"),
        "{error}"
    );
    with(&command, &[&out(&early), "--resume=auto"]).unwrap();
    Left::of(&early, 20).assert_is(&expected, "auto, before the first checkpoint");
}

#[test]
fn what_may_change_is_logged_and_changes_nothing_else() {
    let (_root, whole, folder, _) = killed();
    let changed = ["--threads=2", "--set=run.checkpoint_every_minutes=3"];
    run(&[&[&resume(&folder)[..]], &changed[..]].concat()).unwrap();
    assert_eq!(metrics(&folder), metrics(&whole));
    let text = fs::read_to_string(folder.join("config.toml")).unwrap();
    let config: TrainConfig = toml::from_str(&text).unwrap();
    assert_eq!(
        (config.threads, config.run.checkpoint_every_minutes),
        (2, 3.0)
    );
    let history = history(&folder);
    let start = history
        .iter()
        .rfind(|event| event["kind"] == "start")
        .unwrap();
    assert_eq!(start["checkpoint"], "step-000000008.safetensors");
    assert_eq!(
        start["changes"],
        serde_json::json!([
            "run.checkpoint_every_minutes: 10.0 -> 3.0",
            "threads: 1 -> 2 (the rest is the same up to rounding)",
        ])
    );
}

#[test]
fn more_epochs_are_trained_and_the_new_length_is_recorded() {
    let (_root, whole, folder, _) = killed();
    killed_after(&whole, 20, &folder.join("end"));
    let folder = folder.join("end");
    run(&[&resume(&folder), "--epochs=5"]).unwrap();
    let (records, whole) = (metrics(&folder), metrics(&whole));
    let undisturbed = whole.len() - 1;
    assert_eq!(records[..undisturbed], whole[..undisturbed]);
    let more = &records[undisturbed..];
    assert_eq!(
        (&more[0]["kind"], &more[0]["steps"]),
        (&"run".into(), &25.into())
    );
    let steps: Vec<_> = more
        .iter()
        .filter(|record| record["kind"] == "step")
        .collect();
    assert_eq!(steps.len(), 5);
    assert_eq!(steps[4]["step"], 24);
    let last = records.last().unwrap();
    assert_eq!(
        (&last["kind"], &last["step"], &last["finished"]),
        (&"end".into(), &25.into(), &true.into())
    );

    let error = run(&[&resume(&folder), "--epochs=3"]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`schedule.epochs` is 5, of which 25 steps are done, in the run"),
        "{text}"
    );
    assert!(text.contains("and 3, which are 15 steps, here"), "{text}");
}

#[test]
fn what_may_not_change_is_an_error_with_key_and_both_values() {
    let (root, whole, folder, command) = killed();
    let before = Left::of(&whole, 8).metrics;
    let refused = |arguments: &[&str]| {
        let error = run(arguments).unwrap_err();
        (error.to_string(), hint::of(&error).unwrap_or_default())
    };
    let (text, hint) = refused(&[&resume(&folder), "--temperature=0.5"]);
    assert_eq!(
        text,
        "`loss.temperature` is 0.2 in the run and 0.5 here, and may not change while it trains"
    );
    assert!(hint.contains("leave it away"), "{hint}");
    let mut other = command.clone();
    other.push("--set=encoder.width=8".to_owned());
    let error = with(&other, &[&out(&folder), "--resume=auto"]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("`encoder.width` is 2 in the run and 8 here"),
        "{error}"
    );

    // The images may lie elsewhere, but must be the same.
    let images = root.path().join("images");
    let (text, _) = refused(&[&resume(&folder), "--data=synthetic", "--limit=0"]);
    assert!(
        text.starts_with("`training images` is 40 with labels "),
        "{text}"
    );
    let moved = root.path().join("moved");
    fs::rename(&images, &moved).unwrap();
    assert!(run(&[&resume(&folder)]).is_err(), "images are gone");
    assert_eq!(metrics(&folder), before);
    run(&[&resume(&folder), &format!("--data={}", moved.display())]).unwrap();
    // The first line has the name that the data set had.
    assert_eq!(metrics(&folder), metrics(&whole));

    for (arguments, expected) in [
        (
            ["--resume=auto", "--threads=1"],
            "--resume auto: expected --out FOLDER",
        ),
        (
            ["--resume=nowhere", "--threads=1"],
            "nowhere holds no run to go on with",
        ),
    ] {
        let (text, hint) = refused(&arguments);
        assert!(text.starts_with(expected), "{text}");
        assert!(!hint.is_empty());
    }
}

#[test]
fn checkpoints_by_the_clock_leave_no_trace_in_the_metrics() {
    let (root, whole, _, command) = killed();
    let often = root.path().join("often");
    // Less than a step takes, so that one is due whenever none is being written.
    with(
        &command,
        &[&out(&often), "--set=run.checkpoint_every_minutes=0.000001"],
    )
    .unwrap();
    assert_eq!(metrics(&often), metrics(&whole));
    let events = history(&often);
    let by_the_clock = |event: &&serde_json::Value| event["reason"] == "minutes";
    let taken = events.iter().find(by_the_clock).unwrap();
    let step = taken["step"].as_u64().unwrap();
    assert_ne!(step % 4, 0, "those are due by steps");
    let resumed = root.path().join("resumed");
    killed_after(&often, step, &resumed);
    run(&[&resume(&resumed)]).unwrap();
    Left::of(&resumed, 20).assert_is(&Left::of(&often, 20), "from one by the clock");
}
