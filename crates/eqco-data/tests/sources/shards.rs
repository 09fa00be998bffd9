//! WebDataset's shards.

use eqco_data::{Format, Split};

use super::*;

/// A sample with an image of that shade and some other members.
fn sample(key: &str, shade: u8, others: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    let image = (format!("{key}.jpg"), png(shade));
    let others = others
        .iter()
        .map(|(extension, text)| (format!("{key}.{extension}"), text.as_bytes().to_vec()));
    [image].into_iter().chain(others).collect()
}

/// A shard of these samples.
fn shard(samples: &[Vec<(String, Vec<u8>)>]) -> Vec<u8> {
    let members = samples.iter().flatten();
    let members: Vec<_> = members
        .map(|(name, content)| (name.as_str(), content.clone()))
        .collect();
    archive(&members)
}

/// Two shards for training and one for validation, by the names given.
fn shards(names: [&str; 3]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let first = shard(&[
        sample(
            "n02119789_9",
            1,
            &[("cls", "2"), ("json", "{\"label\": 0, \"other\": [1]}")],
        ),
        sample(
            "n01440764_1",
            3,
            &[("json", "{\"label\": 0}"), ("txt", "a fish, 1 of many")],
        ),
    ]);
    let second = shard(&[
        sample("a/n02100735_7", 4, &[("json", "{\"cls\": 1}")]),
        sample("b.c/n02100735_8", 5, &[("txt", " 1\n")]),
    ]);
    let val = shard(&[
        sample("x", 11, &[("cls", "1")]),
        sample("y", 12, &[("cls", "0\n")]),
    ]);
    write(
        root.path(),
        &[(names[0], &first), (names[1], &second), (names[2], &val)],
    );
    root
}

const SHARDS_TRAIN: [(u8, u32); 4] = [(1, 2), (3, 0), (4, 1), (5, 1)];
const SHARDS_VAL: [(u8, u32); 2] = [(11, 1), (12, 0)];

fn expect_all(path: &Path) {
    let train = opened(path, Split::Train);
    assert_eq!(contents(&*train), labelled(&SHARDS_TRAIN));
    assert_eq!(train.class_names(), ["0", "1", "2"]);
    let val = opened(path, Split::Test);
    assert_eq!(contents(&*val), labelled(&SHARDS_VAL));
    assert_eq!(val.class_names(), train.class_names());
}

#[test]
fn the_archive_of_a_whole_data_set_is_no_shard() {
    let root = tempfile::tempdir().unwrap();
    let train = sample("set/train/a/1", 1, &[]);
    let whole = shard(&[train.clone(), sample("set/val/a/1", 2, &[])]);
    let part = shard(&[train, sample("set/train/b/2", 2, &[])]);
    write(root.path(), &[("whole.tar", &whole), ("part.tar", &part)]);
    refused(
        &root.path().join("whole.tar"),
        Split::Train,
        "images in folders `train` and `val`",
    );
    let part = opened(&root.path().join("part.tar"), Split::Train);
    assert_eq!(contents(&*part), [(1, None), (2, None)]);
}

#[test]
fn folders_names_and_patterns_tell_the_splits() {
    for names in [
        ["train/000.tar", "train/001.tar", "val/000.tar"],
        ["train/b-0.tar", "train/b-1.tar", "test/a.tar"],
        ["train-0.tar", "train-1.tar", "val-0.tar"],
        [
            "imagenet1k-train-0000.tar",
            "imagenet1k-train-0001.tar",
            "imagenet1k-validation-00.tar",
        ],
        ["x_Train_0.tar", "x_Train_1.tar", "x_Test_0.tar"],
    ] {
        let root = shards(names);
        // The second time through the stored index.
        for _ in 0..2 {
            expect_all(root.path());
        }
    }
    let root = shards(["train-000.tar", "train-001.tar", "val-000.tar"]);
    expect_all(&root.path().join("{train-{000..001},val-000}.tar"));
    let train = root.path().join("train-{000..001}.tar");
    assert_eq!(
        contents(&*opened(&train, Split::Train)),
        labelled(&SHARDS_TRAIN)
    );
    refused(&train, Split::Test, "found none for testing");
    let one = root.path().join("train-001.tar");
    assert_eq!(
        contents(&*opened(&one, Split::Train)),
        labelled(&SHARDS_TRAIN[2..])
    );
    refused(&one, Split::Test, "found none for testing");
}

#[test]
fn the_same_images_as_in_folders_and_in_the_original_archives() {
    let (folders, archives) = (unpacked(), original_archives());
    let [folders, archives] = [&folders, &archives].map(|root| opened(root.path(), Split::Train));
    let samples: Vec<_> = TRAIN_CONTENTS
        .iter()
        .map(|(shade, label)| {
            sample(
                &format!("{shade:03}"),
                *shade,
                &[("cls", &label.to_string())],
            )
        })
        .collect();
    let root = tempfile::tempdir().unwrap();
    write(
        root.path(),
        &[
            ("train-0.tar", &shard(&samples[..2])),
            ("train-1.tar", &shard(&samples[2..])),
        ],
    );
    write(
        root.path(),
        &[("classes.txt", b"n01440764\nn02100735\nn02119789\n")],
    );
    let shards = opened(root.path(), Split::Train);
    for index in 0..5 {
        let bytes = folders.encoded(index).unwrap();
        for other in [&archives, &shards] {
            assert_eq!(other.encoded(index).unwrap(), bytes);
            assert_eq!(other.label(index), folders.label(index));
            assert_eq!(other.image(index).unwrap(), folders.image(index).unwrap());
        }
    }
    assert_eq!(
        [archives.class_names(), shards.class_names()],
        [folders.class_names(); 2]
    );
}

#[test]
fn class_names_stand_beside_shards_or_above() {
    for (path, content) in [
        ("classes.txt", "ant\nbee\ncat\ndog\n"),
        ("train/classes.txt", "ant\nbee\ncat\ndog\n"),
        (
            "classes.json",
            r#"{"0": "ant", "1": "bee", "3": "dog", "2": "cat"}"#,
        ),
    ] {
        let root = shards(["train/0.tar", "train/1.tar", "val/0.tar"]);
        write(root.path(), &[(path, content.as_bytes())]);
        let train = opened(root.path(), Split::Train);
        assert_eq!(train.class_names(), ["ant", "bee", "cat", "dog"]);
    }
    let root = shards(["train/0.tar", "train/1.tar", "val/0.tar"]);
    write(root.path(), &[("classes.txt", b"ant\nbee\n")]);
    refused(
        root.path(),
        Split::Train,
        "labels from 0 to 1, as there are 2 classes, found the label 2",
    );
    write(root.path(), &[("classes.txt", b"")]);
    refused(root.path(), Split::Train, "a line or text for each class");
}

#[test]
fn unpacked_images_stand_above_archives_in_their_folder() {
    let classes = unpacked();
    write(
        classes.path(),
        &[("train/n01440764.tar", &shard(&[sample("a", 40, &[])]))],
    );
    let train = opened(classes.path(), Split::Train);
    assert_eq!(contents(&*train), labelled(&TRAIN_CONTENTS));
    let flat = tempfile::tempdir().unwrap();
    let images = shard(&[sample("a", 40, &[])]);
    write(flat.path(), &[("1.png", &png(7)), ("backup.tar", &images)]);
    assert_eq!(contents(&*opened(flat.path(), Split::Train)), [(7, None)]);
    let asked = open_as(text(flat.path()), Split::Train, Some(Format::Shards)).unwrap();
    assert_eq!(contents(&*asked), [(40, None)]);
}

#[test]
fn unlabelled_shards_are_images_without_classes() {
    let root = tempfile::tempdir().unwrap();
    let images = shard(&[
        sample(
            "a",
            1,
            &[("txt", "a caption"), ("json", "{\"url\": \"x\"}")],
        ),
        sample("b", 2, &[]),
    ]);
    write(root.path(), &[("part-0.tar", &images)]);
    let train = opened(root.path(), Split::Train);
    assert_eq!(contents(&*train), [(1, None), (2, None)]);
    assert!(train.class_names().is_empty());
    refused(root.path(), Split::Test, "found none for testing");
}

#[test]
fn wrong_samples_are_explained() {
    let plain = |members: &[(&str, &str)]| {
        let members = members
            .iter()
            .map(|(name, content)| (*name, content.as_bytes().to_vec()));
        archive(&members.collect::<Vec<_>>())
    };
    for (content, expected) in [
        (
            plain(&[("a.jpg", ""), ("a.cls", "dog")]),
            "a class by its number, 0 to 65534, found `dog` in `a.cls`",
        ),
        (plain(&[("a.jpg", ""), ("a.cls", "-1")]), "found `-1`"),
        (plain(&[("a.jpg", ""), ("a.cls", "65535")]), "found `65535`"),
        (
            plain(&[("a.jpg", ""), ("a.txt", "99999999999")]),
            "found `99999999999`",
        ),
        (
            plain(&[("a.jpg", ""), ("a.json", "{\"label\": 1.5}")]),
            "found `1.5`",
        ),
        (
            plain(&[("a.jpg", ""), ("a.json", "{\"label\": ")]),
            "expected JSON",
        ),
        (
            plain(&[("a.jpg", ""), ("a.json", &"[".repeat(100_000))]),
            "expected JSON",
        ),
        (
            plain(&[("a.jpg", ""), ("a.cls", "1"), ("b.jpg", "")]),
            "a label for every image, as for `a.jpg`, found none for `b.jpg`",
        ),
        (
            plain(&[("a.jpg", ""), ("b.jpg", ""), ("a.cls", "1")]),
            "found `a.cls` alone",
        ),
        (
            plain(&[("a.jpg", ""), ("a.png", "")]),
            "`a.jpg` and `a.png`",
        ),
        (
            plain(&[("README", ""), (".a.jpg", "")]),
            "none in any shard",
        ),
        (plain(&[("a.jpg", "")])[..700].to_vec(), "cut short"),
    ] {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("train-0.tar", &content)]);
        refused(root.path(), Split::Train, expected);
        refused(root.path(), Split::Train, "train-0.tar");
    }
}

#[test]
fn wrong_sets_of_shards_are_explained() {
    for (names, expected) in [
        (
            ["train-0.tar", "train-1.tar", "other.tar"],
            "train, val or test in each name or in none",
        ),
        (
            ["train-0.tar", "val-0.tar", "test-0.tar"],
            "give a pattern that leaves one away",
        ),
        (
            ["train-0.tar", "train-1.tar", "train-val-0.tar"],
            "one word for the split in each name",
        ),
    ] {
        refused(shards(names).path(), Split::Train, expected);
    }
    let root = shards(["train-0.tar", "train-2.tar", "val-0.tar"]);
    refused(
        &root.path().join("train-{0..2}.tar"),
        Split::Train,
        "(1 are missing)",
    );
    refused(
        &root.path().join("train-{2..0}.tar"),
        Split::Train,
        "`{2..0}`",
    );
    let more = shard(&[sample("x", 11, &[("cls", "7")])]);
    write(root.path(), &[("val-0.tar", &more)]);
    refused(
        root.path(),
        Split::Test,
        "labels from 0 to 2, as there are 3 classes, found the label 7",
    );
}

#[test]
fn a_shard_that_changes_is_indexed_anew_with_the_others() {
    let root = shards(["train-0.tar", "train-1.tar", "val-0.tar"]);
    let before = opened(root.path(), Split::Train);
    let other = shard(&[sample("new", 9, &[("cls", "0")])]);
    write(root.path(), &[("train-1.tar", &other)]);
    let expected = [(1, Some(2)), (3, Some(0)), (9, Some(0))];
    assert_eq!(contents(&*opened(root.path(), Split::Train)), expected);
    assert!(before.image(0).is_ok());
    assert!(
        before
            .image(2)
            .unwrap_err()
            .to_string()
            .contains("a changed file")
    );
    write(root.path(), &[("train-2.tar", &other)]);
    assert_eq!(opened(root.path(), Split::Train).len(), 4);
}

#[test]
fn more_shards_than_files_may_be_open_are_read_at_random() {
    let root = tempfile::tempdir().unwrap();
    let count = 600;
    for number in 0..count {
        let label = (number % 7).to_string();
        let one = shard(&[sample("a", (number % 200 + 1) as u8, &[("cls", &label)])]);
        write(root.path(), &[(&format!("train/{number:04}.tar"), &one)]);
    }
    let pattern = root.path().join("train/{0000..0599}.tar");
    let train = open_as(text(&pattern), Split::Train, Some(Format::Shards)).unwrap();
    assert_eq!(train.len(), count);
    for turn in 0..2 * count {
        let index = turn * 257 % count;
        assert_eq!(
            train.encoded(index).unwrap().unwrap(),
            png((index % 200 + 1) as u8)
        );
        assert_eq!(train.label(index), Some((index % 7) as u32));
    }
}
