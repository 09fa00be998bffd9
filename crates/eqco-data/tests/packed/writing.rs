//! A file is complete or absent.

use std::fs;
use std::path::Path;

use eqco_data::Split;
use eqco_data::dataset::packed::PackWriter;
use tempfile::tempdir;

use super::opened;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn nothing_is_there_before_the_end_and_an_older_file_stays() {
    let root = tempdir().unwrap();
    let path = root.path().join("a.eqco");
    let classes = ["only".to_owned()];
    let mut writer = PackWriter::create(&path, "first", &classes).unwrap();
    writer.add(Split::Train, Some(0), b"body").unwrap();
    assert_eq!(names(root.path()), [".a.eqco.partial"]);
    drop(writer);
    assert!(names(root.path()).is_empty());

    let mut writer = PackWriter::create(&path, "second", &classes).unwrap();
    writer.add(Split::Train, Some(0), b"body").unwrap();
    let bytes = writer.finish().unwrap();
    assert_eq!(bytes, 68 + 4 + (4 + 6 + 4 + 4 + 4) + 20);
    assert_eq!(names(root.path()), ["a.eqco"]);

    let before = opened(&path, Split::Train);
    drop(PackWriter::create(&path, "third", &classes).unwrap());
    assert_eq!(opened(&path, Split::Train).name(), "second");
    // Whoever has the old file open keeps it.
    let mut writer = PackWriter::create(&path, "fourth", &classes).unwrap();
    writer.add(Split::Train, Some(0), b"another body").unwrap();
    writer.finish().unwrap();
    assert_eq!(&*before.encoded(0).unwrap().unwrap(), b"body");
    let after = opened(&path, Split::Train);
    assert_eq!(&*after.encoded(0).unwrap().unwrap(), b"another body");
}

#[test]
fn labels_that_are_no_class_are_refused() {
    let root = tempdir().unwrap();
    let classes = ["a".to_owned(), "b".to_owned()];
    let mut writer = PackWriter::create(&root.path().join("a.eqco"), "set", &classes).unwrap();
    for label in [Some(2), Some(u32::MAX), None] {
        let error = writer
            .add(Split::Test, label, b"body")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            format!("label: expected a label below 2, or none without classes, got {label:?}")
        );
    }
    let mut writer = PackWriter::create(&root.path().join("b.eqco"), "set", &[]).unwrap();
    assert!(writer.add(Split::Train, Some(0), b"body").is_err());
    assert!(writer.add(Split::Train, None, b"body").is_ok());
}

#[test]
fn places_that_cannot_hold_a_file_are_refused() {
    let root = tempdir().unwrap();
    for path in [
        root.path(),
        &root.path().join("absent/a.eqco"),
        Path::new("/"),
    ] {
        let error = PackWriter::create(path, "set", &[]).unwrap_err();
        assert!(error.to_string().starts_with("cannot write "), "{error}");
        assert!(error.hint().unwrap().contains("choose a name"), "{error}");
    }
    assert!(names(root.path()).is_empty());
}
