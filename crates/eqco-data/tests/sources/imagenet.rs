//! ImageNet's original archives.

use std::fs;
use std::sync::Arc;
use std::thread;

use eqco_data::{Format, Split};

use super::*;

const TAR: &str = "ILSVRC2012_img_train.tar";

#[test]
fn archives_give_what_folders_give_in_the_same_order() {
    let (folders, archives) = (unpacked(), original_archives());
    let labels = VAL_WNIDS.join("\n");
    for root in [&folders, &archives] {
        write(root.path(), &[("val_labels.txt", labels.as_bytes())]);
        // The second time, the archives are read through the stored index.
        for _ in 0..2 {
            let train = opened(root.path(), Split::Train);
            assert_eq!(train.class_names(), ["n01440764", "n02100735", "n02119789"]);
            assert_eq!(contents(&*train), labelled(&TRAIN_CONTENTS));
            let val = opened(root.path(), Split::Test);
            assert_eq!(val.class_names(), train.class_names());
            assert_eq!(contents(&*val), labelled(&VAL_CONTENTS));
        }
    }
    let train = opened(archives.path(), Split::Train);
    let described = train.describe(3);
    assert!(
        described.ends_with("ILSVRC2012_img_train.tar: n02119789/n02119789_10.JPEG"),
        "{described}"
    );
    assert!(
        archives
            .path()
            .join("ILSVRC2012_img_train.tar.eqco-index")
            .is_file()
    );
    assert!(
        !archives.path().join("train").exists(),
        "nothing is unpacked"
    );
}

#[test]
fn an_archive_itself_and_a_folder_around_it_are_sources() {
    let root = original_archives();
    write(
        root.path(),
        &[("val_labels.txt", VAL_WNIDS.join("\n").as_bytes())],
    );
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("imagenet");
    fs::rename(root.path(), &inner).unwrap();
    for path in [
        outer.path().to_path_buf(),
        inner.join(TAR),
        inner.join("ILSVRC2012_img_val.tar"),
    ] {
        let train = opened(&path, Split::Train);
        assert_eq!(contents(&*train), labelled(&TRAIN_CONTENTS));
        assert_eq!(
            contents(&*opened(&path, Split::Test)),
            labelled(&VAL_CONTENTS)
        );
    }
}

#[test]
fn unpacked_images_stand_above_the_archives_beside_them_unless_asked_for() {
    let root = original_archives();
    write(root.path(), &[("train/n01440764/a.JPEG", &png(40))]);
    assert_eq!(
        contents(&*opened(root.path(), Split::Train)),
        [(40, Some(0))]
    );
    let asked = open_as(text(root.path()), Split::Train, Some(Format::ImagenetTar)).unwrap();
    assert_eq!(contents(&*asked), labelled(&TRAIN_CONTENTS));
}

#[test]
fn an_archive_that_changes_is_indexed_anew_and_never_read_at_old_places() {
    let root = original_archives();
    let before = opened(root.path(), Split::Train);
    let path = root.path().join(TAR);
    let inner = archive(&[("n01440764_2.JPEG", png(21)), ("notes.txt", vec![1; 5000])]);
    fs::write(&path, archive(&[("n01440764.tar", inner)])).unwrap();
    assert_eq!(
        contents(&*opened(root.path(), Split::Train)),
        [(21, Some(0))]
    );
    let error = before.image(0).unwrap_err().to_string();
    assert!(error.contains("found a changed file"), "{error}");
}

#[test]
fn many_threads_read_one_archive() {
    let root = original_archives();
    let train = opened(root.path(), Split::Train);
    let readers = (0..4).map(|reader| {
        let train = Arc::clone(&train);
        thread::spawn(move || {
            (0..200).all(|turn| {
                let index = (turn * (reader + 1) + reader) % 5;
                let expected = png(TRAIN_CONTENTS[index].0);
                train.encoded(index).unwrap().unwrap() == expected
            })
        })
    });
    let readers: Vec<_> = readers.collect();
    assert!(readers.into_iter().all(|reader| reader.join().unwrap()));
}

#[test]
fn damaged_and_foreign_archives_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(TAR);
    let image = || ("n01440764_1.JPEG", png(1));
    let whole = archive(&[("n01440764.tar", archive(&[image()]))]);
    for (content, expected) in [
        (whole[..1500].to_vec(), "cut short"),
        (
            archive(&[image()]),
            "one archive WNID.tar for each class, found `n01440764_1.JPEG`",
        ),
        (
            archive(&[("a.tar", archive(&[("notes.txt", vec![1])]))]),
            "images of every class, found none in `a.tar`",
        ),
        (
            archive(&[("a.tar", archive(&[])), ("a.tar", archive(&[]))]),
            "two of `a`",
        ),
        (
            archive(&[("a.tar", archive(&[image(), image()]))]),
            "two of `a/n01440764_1.JPEG`",
        ),
        // An inner archive that claims more than it holds must not lead into its neighbour.
        (
            archive(&[
                ("a.tar", archive(&[image()])[..512].to_vec()),
                ("b.tar", archive(&[image()])),
            ]),
            "bytes that the header of `n01440764_1.JPEG` claims",
        ),
        (archive(&[("a.tar", vec![])]), "an end marker"),
        (archive(&[]), "none"),
        (vec![0x1f; 600], "the right checksum"),
        (b"\x1f\x8b".repeat(300), "a gzip file"),
    ] {
        fs::write(&path, content).unwrap();
        let failure = failure_as(root.path(), Split::Train, None);
        assert!(
            failure.contains(expected),
            "expected `{expected}` in `{failure}`"
        );
        assert!(failure.contains(TAR), "{failure}");
        assert!(failure.contains("copy it again"), "{failure}");
        assert!(!root.path().join(format!("{TAR}.eqco-index")).exists());
    }
    refused(
        root.path(),
        Split::Test,
        "expected the archive ILSVRC2012_img_val.tar, found no such file",
    );
}

#[test]
fn the_wish_for_a_format_that_is_not_there_is_answered_with_what_is() {
    let folders = unpacked();
    for (format, expected) in [
        (
            Format::ImagenetTar,
            "format imagenet-tar: ILSVRC2012_img_train.tar or",
        ),
        (Format::Shards, "format shards: a folder with *.tar"),
        (
            Format::Cifar10,
            "format cifar10: a folder with data_batch_1.bin",
        ),
        (
            Format::Cifar100,
            "format cifar100: a folder with fine_label_names.txt",
        ),
        (
            Format::Idx,
            "format idx: a folder with train-images-idx3-ubyte",
        ),
    ] {
        let failure = failure_as(folders.path(), Split::Train, Some(format));
        assert!(
            failure.contains(expected) && failure.contains("found folder"),
            "{failure}"
        );
        assert!(failure.contains("--format NAME"), "{failure}");
    }
    let archives = original_archives();
    let failure = failure_as(
        &archives.path().join(TAR),
        Split::Train,
        Some(Format::Folder),
    );
    assert!(
        failure.contains("expected format folder: a folder, found imagenet-tar"),
        "{failure}"
    );
    let failure = failure_as(Path::new("embedded"), Split::Train, Some(Format::Folder));
    assert!(
        failure.contains("format: expected none, as embedded has no files, got folder"),
        "{failure}"
    );
}
