//! What befalls images while a run is reading them: deleted, overwritten with something else, replaced by other pictures.

use std::fs;
use std::path::Path;

use super::images;
use super::program::{output, start, text};
use super::runs::{Left, TINY, metrics};

/// The line after which an epoch has been done, and many are left.
const EPOCH: &str = "epoch ";

/// A run of so many epochs that there is time to do something to it.
fn settings(data: &Path, share: &str, epochs: &str) -> Vec<String> {
    let mut all: Vec<String> = TINY.iter().map(|argument| (*argument).to_owned()).collect();
    all.retain(|argument| !argument.starts_with("--epochs") && !argument.contains("max_bad_share"));
    all.push(format!("--data={}", data.display()));
    all.push(format!("--epochs={epochs}"));
    all.push(format!("--set=data.loader.max_bad_share={share}"));
    all.extend(["--method=simo", "--negatives=4", "--out=run"].map(str::to_owned));
    all
}

fn as_text(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

#[test]
fn images_that_go_bad_during_a_run_are_named_and_counted_and_others_stand_in() {
    let root = tempfile::tempdir().unwrap();
    let data = images::folder(root.path());
    let arguments = settings(&data, "0.2", "80");
    let (mut child, mut lines) = start(root.path(), &as_text(&arguments));
    assert!(lines.any(|line| line.starts_with(EPOCH)));
    let file = |name: &str| data.join("train").join(name);
    fs::remove_file(file("a/004.png")).unwrap();
    fs::write(file("b/007.png"), "no picture any more").unwrap();
    // Another picture in the place of one: nothing that anybody could know of.
    let other = fs::read(file("a/010.png")).unwrap();
    fs::write(file("b/015.png.new"), other).unwrap();
    fs::rename(file("b/015.png.new"), file("b/015.png")).unwrap();

    let told = lines.collect::<Vec<_>>().join("\n");
    assert!(child.wait().unwrap().success(), "{told}");
    for bad in ["a/004.png", "b/007.png", "b/029.png", "a/038.png"] {
        let lines = told.lines().filter(|line| line.contains(bad));
        assert!(
            lines.count() <= 1,
            "{bad} is told of more than once: {told}"
        );
    }
    for bad in ["a/004.png", "b/007.png"] {
        let line = told.lines().find(|line| line.contains(bad));
        let line = line.unwrap_or_else(|| panic!("{bad} is not told of: {told}"));
        assert!(line.contains("skipped an unreadable image"), "{line}");
        assert!(!line.contains('\u{1b}'), "colours for nobody: {line:?}");
    }
    let lines = metrics(&root.path().join("run"));
    let steps = lines.iter().filter(|line| line["kind"] == "step").count();
    assert_eq!(steps, 80 * 5);
    let mut epochs = lines.iter().filter(|line| line["kind"] == "epoch");
    assert_eq!(epochs.next_back().unwrap()["skipped_images"], 4);
}

#[test]
fn too_many_of_them_end_the_run_which_goes_on_exactly_when_they_are_back() {
    let root = tempfile::tempdir().unwrap();
    let data = images::folder(root.path());
    let whole = root.path().join("whole");
    fs::create_dir(&whole).unwrap();
    // Two are damaged from the beginning: one more is too many.
    let arguments = settings(&data, "0.06", "80");
    let every = ["--set=run.checkpoint_every_steps=1"];
    let ended = output(&whole, &[&as_text(&arguments)[..], &every].concat());
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    let expected = Left::of(&whole.join("run"), 80 * 5);

    let (mut child, mut lines) = start(root.path(), &[&as_text(&arguments)[..], &every].concat());
    assert!(lines.any(|line| line.starts_with(EPOCH)));
    let (here, away) = (data.join("train/a/004.png"), root.path().join("away.png"));
    fs::rename(&here, &away).unwrap();
    let told = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(child.wait().unwrap().code(), Some(1), "{told}");
    assert!(told.contains("3 of 40 images are unreadable"), "{told}");
    assert!(told.contains("a/004.png"), "{told}");
    assert!(
        told.contains("hint: repair or remove these files"),
        "{told}"
    );

    fs::rename(&away, &here).unwrap();
    let resumed = output(root.path(), &["--resume=run"]);
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    Left::of(&root.path().join("run"), 80 * 5).assert_is(&expected, "after an image came back");
}
