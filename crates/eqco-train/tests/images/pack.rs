//! `eqco-train pack`.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use eqco_data::{Dataset, ImageHeader, Split, encode, limited, open};
use tempfile::tempdir;

use super::{command, failed, hostile_folder, names, run, succeeded, text};

fn opened(path: &Path, split: Split) -> std::sync::Arc<dyn Dataset> {
    open(path.to_str().unwrap(), split).unwrap()
}

#[test]
fn a_run_on_a_packed_file_is_the_run_on_its_source() {
    let root = tempdir().unwrap();
    let printed = succeeded(
        root.path(),
        &["pack", "--data", "synthetic", "--out", "s.eqco"],
    );
    let expected = "s.eqco: 2000 training and 400 test images, ";
    assert!(printed.starts_with(expected), "{printed}");
    assert!(
        printed.ends_with(" MB\n  2400 stored as PNG files of their pixels\n"),
        "{printed}"
    );
    assert_eq!(names(root.path()), ["s.eqco"]);

    let losses = |data: &str, out: &str| {
        let flags = "--limit=32 --image-size=8 --width=2 --batch-size=16 --negatives=4 --epochs=1 --threads=1 \
                     --set=schedule.warmup_epochs=0 --set=run.final_table=false --set=run.knn_every_epochs=0";
        let flags: Vec<&str> = flags.split_whitespace().collect();
        succeeded(
            root.path(),
            &[&["--data", data, "--out", out], &flags[..]].concat(),
        );
        let metrics = fs::read_to_string(root.path().join(out).join("metrics.jsonl")).unwrap();
        let records = metrics.lines().map(super::json);
        let steps = records.filter(|record| record["kind"] == "step");
        steps
            .map(|step| step["loss"].as_f64().unwrap())
            .collect::<Vec<_>>()
    };
    let [source, packed] = [losses("synthetic", "a"), losses("s.eqco", "b")];
    assert_eq!(source.len(), 2);
    assert_eq!(source, packed);
}

#[test]
fn the_embedded_images_come_back() {
    let root = tempdir().unwrap();
    let arguments = [
        "pack",
        "--data=embedded",
        "--split=test",
        "--out=e.eqco",
        "--threads=2",
    ];
    succeeded(root.path(), &arguments);
    let packed = opened(&root.path().join("e.eqco"), Split::Test);
    let source = open("embedded", Split::Test).unwrap();
    assert_eq!((packed.len(), packed.name()), (2000, source.name()));
    assert_eq!(packed.class_names(), source.class_names());
    let few = [packed.clone(), source].map(|dataset| limited(dataset, 100));
    for index in 0..100 {
        assert_eq!(few[0].image(index).unwrap(), few[1].image(index).unwrap());
        assert_eq!(few[0].label(index), few[1].label(index));
    }
    let missing = failed(
        root.path(),
        &["pack", "--data=e.eqco", "--split=train", "--out=f.eqco"],
    );
    assert!(
        missing.contains("expected training images, found none"),
        "{missing}"
    );
}

#[test]
fn sides_are_bounded_and_what_cannot_be_decoded_is_told_and_kept() {
    let root = tempdir().unwrap();
    let folder = hostile_folder(root.path());
    let base = ["pack", "--data=hostile", "--split=train", "--out=h.eqco"];
    let output = run(
        root.path(),
        &[&base[..], &["--max-side=32", "--quality=80"]].concat(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let counts =
        "  1 kept as they are\n  4 made smaller\n  3 cannot be decoded, kept as they are\n";
    assert!(printed.ends_with(counts), "{printed}");
    let warned = text(&output.stderr);
    assert!(
        warned.contains("warning: 3 images cannot be decoded"),
        "{warned}"
    );
    assert!(warned.contains("empty.jpg: the file is empty"), "{warned}");

    let [packed, source] =
        [&root.path().join("h.eqco"), &folder].map(|path| opened(path, Split::Train));
    assert_eq!(
        packed.name(),
        "hostile, longer side at most 32, JPEG quality 80"
    );
    for index in 0..8 {
        let [after, before] = [&packed, &source].map(|set| set.encoded(index).unwrap().unwrap());
        if [1, 2, 4, 7].contains(&index) {
            assert_eq!(after, before, "{index}");
            continue;
        }
        let header = ImageHeader::of(&after, "after").unwrap();
        assert!(header.format.starts_with("JPEG"), "{index}: {header:?}");
        // 61 x 47 pixels.
        assert_eq!((header.width, header.height), (32, 25), "{index}");
    }
    // Without a bound, everything is kept.
    let printed = succeeded(root.path(), &base);
    assert!(printed.ends_with("  8 kept as they are\n"), "{printed}");
}

#[test]
fn what_cannot_be_packed_is_said_before_anything_is_written() {
    let root = tempdir().unwrap();
    hostile_folder(root.path());
    let refused = |arguments: &str, expected: &[&str]| {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let message = failed(root.path(), &[&["pack"], &arguments[..]].concat());
        for expected in expected {
            assert!(message.contains(expected), "{expected} in {message}");
        }
    };
    refused("--data embedded", &["--out <FILE.eqco>"]);
    refused("--out a.eqco", &["--data <NAME|PATH>"]);
    refused(
        "--data embedded --out a.eqco --quality 90",
        &["--max-side <PIXELS>"],
    );
    refused(
        "--data embedded --out a.eqco --max-side 0",
        &["max-side: expected 1 to 16384, got 0"],
    );
    let quality = "--data embedded --out a.eqco --max-side 9 --quality 101";
    refused(quality, &["quality: expected 1 to 100, got 101"]);
    let no_test = &[
        "--split train packs the training images alone",
        "expected a folder test/",
    ];
    refused("--data hostile --out a.eqco", no_test);
    let no_folder = &[
        "cannot write no/a.eqco",
        "hint: choose a name in a folder that exists",
    ];
    refused("--data synthetic --out no/a.eqco", no_folder);
    refused(
        "--data nothing --out a.eqco",
        &["no data set is called `nothing`"],
    );
    assert_eq!(names(root.path()), ["hostile"]);
}

#[cfg(unix)]
#[test]
fn an_image_that_cannot_be_read_at_all_ends_the_work() {
    let root = tempdir().unwrap();
    let folder = hostile_folder(root.path());
    std::os::unix::fs::symlink("nowhere", folder.join("train/a/z.jpg")).unwrap();
    let arguments = ["pack", "--data=hostile", "--split=train", "--out=h.eqco"];
    let message = failed(root.path(), &arguments);
    assert!(
        message.starts_with("error: an image cannot be read; repair or remove it"),
        "{message}"
    );
    assert!(
        message.contains("because: cannot read hostile/train/a/z.jpg"),
        "{message}"
    );
    assert_eq!(names(root.path()), ["hostile"]);
}

/// Starts packing images that take long to make smaller, and waits until it has begun.
fn begun(root: &Path) -> Child {
    let large = root.join("large");
    fs::create_dir(&large).unwrap();
    let image = eqco_data::Image::from_grey(2000, 2000, &[77; 2000 * 2000]).unwrap();
    fs::write(large.join("0.jpg"), encode::jpeg(&image, 50).unwrap()).unwrap();
    for number in 1..500 {
        fs::hard_link(large.join("0.jpg"), large.join(format!("{number}.jpg"))).unwrap();
    }
    let arguments = "pack --data large --split train --out l.eqco --max-side 8 --threads 1";
    let mut child = command(root)
        .args(arguments.split_whitespace())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !root.join(".l.eqco.partial").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        thread::sleep(Duration::from_millis(5));
    }
    child
}

#[cfg(unix)]
#[test]
fn a_stopped_pack_leaves_nothing() {
    let root = tempdir().unwrap();
    let child = begun(root.path());
    // SAFETY: the process is our child, which nobody has waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("stopped: nothing has been written"), "{said}");
    assert_eq!(names(root.path()), ["large"]);
}

#[test]
fn a_killed_pack_leaves_no_file_and_the_next_one_cleans_up() {
    let root = tempdir().unwrap();
    let mut child = begun(root.path());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(root.path()), [".l.eqco.partial", "large"]);
    succeeded(
        root.path(),
        &["pack", "--data=large", "--split=train", "--out=l.eqco"],
    );
    assert_eq!(names(root.path()), ["l.eqco", "large"]);
    assert_eq!(opened(&root.path().join("l.eqco"), Split::Train).len(), 500);
}
