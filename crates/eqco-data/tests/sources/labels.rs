//! Labels of validation images that lie in one folder or archive.

use std::io::Write;

use eqco_data::Split;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// Written by SciPy; its numbers 1, 2 and 4 are n02119789, n02100735 and n01440764.
const META: &[u8] = include_bytes!("../golden/devkit/meta.mat");

const GROUND_TRUTH: &[u8] = b"1\n4\n2\n4\n";

const TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";

#[test]
fn every_file_with_labels_numbers_the_classes_of_training() {
    let lines = |separator: &str, extension: &str| {
        let line = |number: usize| {
            let wnid = VAL_WNIDS[number];
            format!(
                "ILSVRC2012_val_{:08}{extension}{separator}{wnid}\n",
                number + 1
            )
        };
        // Not in order, and with a file that is not there.
        let extra = format!("ILSVRC2012_val_00000099{extension}{separator}n01440764\n");
        [line(2), line(0), extra, line(3), line(1)].concat()
    };
    let kaggle = lines(",", "").replace('\n', " 85 1 499 272 n01440764 1 2 3 4\n");
    for (name, content) in [
        ("val_labels.txt", VAL_WNIDS.join("\n")),
        ("val_labels", "2\n0\n1\n0\n".to_owned()),
        (
            "imagenet_2012_validation_synset_labels.txt",
            VAL_WNIDS.join("\r\n") + "\r\n",
        ),
        ("val_labels.txt", lines(" ", ".JPEG")),
        ("val_labels.csv", lines(",", ".JPEG")),
        (
            "val.txt",
            lines("\t", ".JPEG")
                .replace("n01440764", "0")
                .replace("n02100735", "1"),
        ),
        (
            "LOC_val_solution.csv",
            format!("ImageId,PredictionString\n{kaggle}"),
        ),
    ] {
        for root in [unpacked(), original_archives()] {
            write(root.path(), &[(name, content.as_bytes())]);
            let val = opened(root.path(), Split::Test);
            assert_eq!(contents(&*val), labelled(&VAL_CONTENTS), "{name}");
            assert_eq!(val.class_names(), ["n01440764", "n02100735", "n02119789"]);
        }
    }
}

#[test]
fn kaggles_folders_are_read_as_they_are_unpacked() {
    let (root, images) = (tempfile::tempdir().unwrap(), unpacked());
    let inner = root.path().join("ILSVRC/Data/CLS-LOC");
    fs::create_dir_all(inner.parent().unwrap()).unwrap();
    fs::rename(images.path(), &inner).unwrap();
    let line = |(number, wnid): (usize, &&str)| {
        let number = number + 1;
        format!("ILSVRC2012_val_{number:08},{wnid} 1 2 3 4 {wnid} 5 6 7 8\n")
    };
    let lines: String = VAL_WNIDS.iter().enumerate().map(line).collect();
    let solution = format!("ImageId,PredictionString\n{lines}");
    write(
        root.path(),
        &[
            ("LOC_val_solution.csv", solution.as_bytes()),
            ("LOC_synset_mapping.txt", b"n01440764 tench"),
            // Without labels: validation images are measured with instead.
            (
                "ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG",
                &png(90),
            ),
        ],
    );
    for path in [root.path(), &inner] {
        let train = opened(path, Split::Train);
        assert_eq!(contents(&*train), labelled(&TRAIN_CONTENTS));
        let val = opened(path, Split::Test);
        assert_eq!(contents(&*val), labelled(&VAL_CONTENTS));
    }
}

#[test]
fn the_development_kit_is_read_unpacked_and_packed() {
    let kit = "ILSVRC2012_devkit_t12/data";
    let packed = archive(&[
        (&format!("{kit}/meta.mat"), META.to_vec()),
        ("ILSVRC2012_devkit_t12/readme.txt", b"read me".to_vec()),
        (&format!("{kit}/{TRUTH}"), GROUND_TRUTH.to_vec()),
    ]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&packed).unwrap();
    let packed = encoder.finish().unwrap();
    for root in [unpacked(), original_archives()] {
        for folder in ["", "data/", "ILSVRC2012_devkit_t12/data/"] {
            let truth = format!("{folder}{TRUTH}");
            write(
                root.path(),
                &[(&format!("{folder}meta.mat"), META), (&truth, GROUND_TRUTH)],
            );
            let val = opened(root.path(), Split::Test);
            assert_eq!(contents(&*val), labelled(&VAL_CONTENTS), "{folder}");
            fs::remove_file(root.path().join(truth)).unwrap();
        }
        write(root.path(), &[("ILSVRC2012_devkit_t12.tar.gz", &packed)]);
        assert_eq!(
            contents(&*opened(root.path(), Split::Test)),
            labelled(&VAL_CONTENTS)
        );
    }
    let root = unpacked();
    let cut = &packed[..packed.len() / 2];
    write(root.path(), &[("ILSVRC2012_devkit_t12.tar.gz", cut)]);
    refused(root.path(), Split::Test, "cannot read");
}

#[test]
fn without_training_images_the_names_of_the_labels_are_the_classes() {
    for root in [unpacked(), original_archives()] {
        for train in ["train", "ILSVRC2012_img_train.tar"] {
            let path = root.path().join(train);
            let _ = if path.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
        }
        write(
            root.path(),
            &[("val_labels.txt", VAL_WNIDS.join("\n").as_bytes())],
        );
        let val = opened(root.path(), Split::Test);
        assert_eq!(val.class_names(), ["n01440764", "n02100735", "n02119789"]);
        assert_eq!(contents(&*val), labelled(&VAL_CONTENTS));
        write(root.path(), &[("val_labels.txt", b"0\n1\n0\n1\n")]);
        refused(
            root.path(),
            Split::Test,
            "names of classes, as there are no training images",
        );
    }
}

#[test]
fn wrong_labels_are_explained() {
    for root in [unpacked(), original_archives()] {
        for (content, expected) in [
            (
                "n01440764\nn02119789\n",
                "one label for each of 4 images, found 2 lines",
            ),
            ("", "found 0 lines"),
            // ILSVRC's own numbers begin with 1.
            (
                "1\n3\n2\n3\n",
                "one of the 3 classes of training, or its number from 0, found `3`",
            ),
            ("0\n-1\n0\n0\n", "found `-1`"),
            ("n01440764\nn1\nn01440764\nn01440764\n", "found `n1`"),
            (
                "ILSVRC2012_val_00000001.JPEG 0\n",
                "none for `ILSVRC2012_val_00000002.JPEG`",
            ),
            (
                "ILSVRC2012_val_00000001.JPEG 0\n1\n",
                "`FILE CLASS` in every line, found `1`",
            ),
            (
                "a.JPEG 0\na.JPEG 1\n",
                "one class for each file, found two for `a.JPEG`",
            ),
        ] {
            write(root.path(), &[("val_labels.txt", content.as_bytes())]);
            refused(root.path(), Split::Test, expected);
            refused(root.path(), Split::Test, "val_labels.txt");
        }
        fs::remove_file(root.path().join("val_labels.txt")).unwrap();
        for (truth, meta, expected) in [
            (
                GROUND_TRUTH,
                None,
                "meta.mat of the same development kit beside it",
            ),
            (
                GROUND_TRUTH,
                Some(&b"no table"[..]),
                "found something else than a MAT file of version 5",
            ),
            (
                b"1\n4\n2\n",
                Some(META),
                "to ILSVRC2012_val_00000003.JPEG, found `ILSVRC2012_val_00000004.JPEG`",
            ),
            (
                b"1\n4\n2\n77\n",
                Some(META),
                "numbers of the 7 synsets in meta.mat, found `77`",
            ),
            (b"1\n4\n2\n300\n", Some(META), "found `n02096294`"),
            (b"1\n4\n2\nx\n", Some(META), "found `x`"),
        ] {
            let _ = fs::remove_file(root.path().join("meta.mat"));
            write(root.path(), &[(TRUTH, truth)]);
            if let Some(meta) = meta {
                write(root.path(), &[("meta.mat", meta)]);
            }
            refused(root.path(), Split::Test, expected);
        }
    }
}

#[test]
fn missing_labels_are_asked_for() {
    refused(
        unpacked().path(),
        Split::Test,
        "a file with labels such as val_labels.txt beside train/",
    );
    let archives = original_archives();
    refused(
        archives.path(),
        Split::Test,
        "labels of the images in ILSVRC2012_img_val.tar",
    );
    refused(archives.path(), Split::Test, "ILSVRC2012_devkit_t12.tar.gz");
}
