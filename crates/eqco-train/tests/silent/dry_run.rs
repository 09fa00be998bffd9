//! A dry run does everything once, tells what it takes, and leaves nothing.

use std::fs;

use crate::program::{SMALL, program, read};

const TABLE: &str = "--set=run.final_table=true";

#[test]
fn a_dry_run_tells_memory_and_time_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let moco = [
        "--set=encoder.width=16",
        "--method=moco_v2",
        "--set=method.negative_count=32768",
        "--set=run.on_nonfinite=skip",
    ];
    let output = program(folder.path())
        .args(
            [
                &SMALL[..],
                &moco,
                &[TABLE, "--dry-run", "--epochs=10", "--out=run"],
            ]
            .concat(),
        )
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    let (status, shown, told) = read(&output);
    assert_eq!((status, shown.as_str()), (Some(0), ""), "{told}");
    let line = |name: &str| {
        let found = told.lines().find(|line| line.starts_with(name));
        found
            .unwrap_or_else(|| panic!("no {name}: {told}"))
            .to_owned()
    };
    // 32,768 keys of 8 numbers.
    let memory = line("memory   ");
    assert!(
        memory.contains("queue 1.0 MiB") && memory.contains(" MiB at most: parameters "),
        "{memory}"
    );
    let part = |name: &str| -> f64 {
        let text = memory.split(&format!("{name} ")).nth(1).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    // Two encoders with their statistics, one set of gradients and of velocities, the copy of one encoder.
    let (parameters, gradients) = (part("parameters"), part("gradients"));
    assert!((parameters / gradients - 2.0).abs() < 0.1, "{memory}");
    assert_eq!(gradients, part("optimiser"), "{memory}");
    assert!(
        (part("undo") - gradients).abs() <= 0.2 * gradients,
        "{memory}"
    );
    assert!(part("activations") > 0.5, "{memory}");
    assert!(line("checkpoint ").contains(" MiB in "), "{told}");
    assert!(
        line("evaluated ").starts_with("evaluated 32 images, 128 finite numbers each"),
        "{told}"
    );
    let time = line("time     ");
    assert!(
        time.contains(" s a step, ") && time.contains(" for all 30; "),
        "{time}"
    );
    assert!(
        time.contains(" for 2 checkpoints") && time.contains(" images at the end"),
        "{time}"
    );
    // A queue of 682 epochs.
    assert!(
        line("WARNING  ").contains("a queue of 32768 keys over 48 images: a query meets 682.3"),
        "{told}"
    );
    for left in [folder.path(), temporary.path()] {
        assert_eq!(fs::read_dir(left).unwrap().count(), 0, "{}", left.display());
    }
}

#[test]
fn what_would_fail_after_the_first_epoch_fails_in_a_dry_run() {
    let folder = tempfile::tempdir().unwrap();
    // Nowhere to write: as a full disk, it shows at the first checkpoint.
    let output = program(folder.path())
        .args([&SMALL[..], &["--dry-run"]].concat())
        .env("TMPDIR", folder.path().join("missing/folder"))
        .output()
        .unwrap();
    let (status, _, told) = read(&output);
    assert_eq!(status, Some(1), "{told}");
    assert!(
        told.contains("eqco-dry-run-") && told.contains("hint: "),
        "{told}"
    );
    // Weights that one update makes infinite.
    let output = program(folder.path())
        .args([&SMALL[..], &["--dry-run", "--lr=1e300"]].concat())
        .output()
        .unwrap();
    let (status, _, told) = read(&output);
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("training has diverged"), "{told}");
}
