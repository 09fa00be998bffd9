//! Every source of images: the same images from each, with the same numbers, for the library and in `inspect`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use eqco_data::dataset::packed::PackWriter;
use eqco_data::{Dataset, Split, encode, open, subset};
use serde_json::json as value;
use tempfile::tempdir;

use super::source_forms::{
    Labelled, archive, archive_of_archives, class_folders, name, parquet_file, shard,
};
use super::{json, succeeded};

/// In the order of names, which is that of labels.
const CLASSES: [&str; 3] = ["n01440764", "n02100735", "n02119789"];

/// Images of each class.
const TRAIN: [usize; 3] = [5, 4, 3];
const TEST: [usize; 3] = [2, 1, 1];

/// The ground truth of the test images by the numbers that the development kit gives to the classes.
const TRUTH: &str = "4\n4\n2\n1\n";
const META: &[u8] = include_bytes!("../../../eqco-data/tests/golden/devkit/meta.mat");

/// Both parts as PNG files with labels, of which all sources are made.
struct Images([Vec<Labelled>; 2]);

fn counts(split: Split) -> [usize; 3] {
    match split {
        Split::Train => TRAIN,
        Split::Test => TEST,
    }
}

/// Embedded images of classes 0 to 2, class after class.
fn embedded(split: Split) -> Arc<dyn Dataset> {
    let counts = counts(split);
    let of_class = |class: u32| (0..counts[class as usize] as u32).map(move |at| at * 10 + class);
    let indices = (0..3).flat_map(of_class).collect();
    subset(open("embedded", split).unwrap(), "part".to_owned(), indices)
}

impl Images {
    fn new() -> Self {
        Self([Split::Train, Split::Test].map(|split| {
            let embedded = embedded(split);
            let file = |index| {
                let png = encode::png(&embedded.image(index).unwrap()).unwrap();
                (embedded.label(index).unwrap(), png)
            };
            (0..embedded.len()).map(file).collect()
        }))
    }

    fn train(&self) -> &[Labelled] {
        &self.0[0]
    }

    fn test(&self) -> &[Labelled] {
        &self.0[1]
    }
}

/// A kind of source: how it is written into a folder, and what is special about it.
struct Source {
    name: &'static str,
    /// What `--data` names below the folder; empty for the folder itself.
    data: &'static str,
    write: fn(&Path, &Images),
    /// Names of classes beyond those with images, or other ones.
    class_names: fn() -> Vec<String>,
    /// The sides of an image, of which the embedded one is the middle.
    side: usize,
    /// Whether it holds files rather than pixels.
    has_files: bool,
}

fn three() -> Vec<String> {
    CLASSES.map(str::to_owned).to_vec()
}

fn padded_to(count: usize) -> Vec<String> {
    let others = (3..count).map(|class| format!("other {class}"));
    three().into_iter().chain(others).collect()
}

/// A source of files in the folder itself with three classes.
const FILES: Source = Source {
    name: "",
    data: "",
    write: |_, _| (),
    class_names: three,
    side: 28,
    has_files: true,
};

const SOURCES: [Source; 12] = [
    Source {
        name: "folder",
        write: |root, images| {
            class_folders(&root.join("train"), &CLASSES, images.train(), "png").unwrap();
            class_folders(&root.join("val"), &CLASSES, images.test(), "png").unwrap();
        },
        ..FILES
    },
    Source {
        name: "flat-val-list",
        write: |root, images| {
            flat_validation(root, images);
            let line = |(number, image): (usize, &Labelled)| {
                format!("{} {}\n", name(number, "JPEG"), CLASSES[image.0 as usize])
            };
            let lines: String = images.test().iter().enumerate().map(line).collect();
            fs::write(root.join("val_labels.txt"), lines).unwrap();
        },
        ..FILES
    },
    Source {
        name: "kaggle",
        write: |root, images| {
            let inner = root.join("ILSVRC/Data/CLS-LOC");
            flat_validation(&inner, images);
            let line = |(number, image): (usize, &Labelled)| {
                format!(
                    "{},{} 1 2 3 4\n",
                    name(number, "").trim_end_matches('.'),
                    CLASSES[image.0 as usize]
                )
            };
            let lines: String = images.test().iter().enumerate().map(line).collect();
            let lines = format!("ImageId,PredictionString\n{lines}");
            fs::write(root.join("LOC_val_solution.csv"), lines).unwrap();
        },
        ..FILES
    },
    Source {
        name: "devkit",
        write: |root, images| {
            flat_validation(root, images);
            development_kit(root);
        },
        ..FILES
    },
    Source {
        name: "imagenet-tar",
        write: |root, images| {
            let train = archive_of_archives(&CLASSES, images.train(), "JPEG").unwrap();
            fs::write(root.join("ILSVRC2012_img_train.tar"), train).unwrap();
            let members = images.test().iter().enumerate();
            let test = members.map(|(number, image)| (name(number, "JPEG"), &image.1[..]));
            let test = archive(test).unwrap();
            fs::write(root.join("ILSVRC2012_img_val.tar"), test).unwrap();
            development_kit(root);
        },
        ..FILES
    },
    Source {
        name: "shards",
        write: |root, images| {
            let (first, second) = images.train().split_at(7);
            for (file, images) in [
                ("train-0", first),
                ("train-1", second),
                ("val-0", images.test()),
            ] {
                let shard = shard(images, "png").unwrap();
                fs::write(root.join(format!("{file}.tar")), shard).unwrap();
            }
            fs::write(root.join("classes.txt"), CLASSES.join("\n")).unwrap();
        },
        ..FILES
    },
    Source {
        name: "parquet",
        write: |root, images| {
            for (part, images) in [("train", images.train()), ("test", images.test())] {
                let file = root.join(format!("{part}-00000-of-00001.parquet"));
                fs::write(file, parquet_file::of(&CLASSES, images)).unwrap();
            }
        },
        ..FILES
    },
    Source {
        name: "packed",
        data: "images.eqco",
        write: |root, images| {
            let path = root.join("images.eqco");
            let mut writer = PackWriter::create(&path, "packed", &three()).unwrap();
            for (split, images) in [Split::Train, Split::Test].into_iter().zip(&images.0) {
                for (label, bytes) in images {
                    writer.add(split, Some(*label), bytes).unwrap();
                }
            }
            writer.finish().unwrap();
        },
        ..FILES
    },
    Source {
        name: "cifar10",
        write: |root, _| {
            for batch in 1..=5 {
                let images = embedded(Split::Train);
                // Five files of 12 images: 3, 3, 2, 2, 2.
                let (start, end) = (12 * (batch - 1) / 5, 12 * batch / 5);
                let records = (start..end).flat_map(|index| cifar_record(&[], &*images, index));
                let file = root.join(format!("data_batch_{batch}.bin"));
                fs::write(file, records.collect::<Vec<u8>>()).unwrap();
            }
            let test = embedded(Split::Test);
            let records = (0..4).flat_map(|index| cifar_record(&[], &*test, index));
            fs::write(root.join("test_batch.bin"), records.collect::<Vec<u8>>()).unwrap();
            fs::write(root.join("batches.meta.txt"), padded_to(10).join("\n")).unwrap();
        },
        class_names: || padded_to(10),
        side: 32,
        has_files: false,
        ..FILES
    },
    Source {
        name: "cifar100",
        write: |root, _| {
            for (file, split) in [("train.bin", Split::Train), ("test.bin", Split::Test)] {
                let images = embedded(split);
                // The coarse label is another one.
                let records =
                    (0..images.len()).flat_map(|index| cifar_record(&[17], &*images, index));
                fs::write(root.join(file), records.collect::<Vec<u8>>()).unwrap();
            }
            fs::write(root.join("fine_label_names.txt"), padded_to(100).join("\n")).unwrap();
        },
        class_names: || padded_to(100),
        side: 32,
        has_files: false,
        ..FILES
    },
    Source {
        name: "idx",
        write: |root, _| {
            for (file, split) in [("train", Split::Train), ("t10k", Split::Test)] {
                let images = embedded(split);
                let count = images.len() as u32;
                let grey = (0..images.len()).flat_map(|index| grey(&*images, index));
                let labels = (0..images.len()).map(|index| images.label(index).unwrap() as u8);
                let path = |kind: &str| root.join(format!("{file}-{kind}-ubyte"));
                fs::write(path("images-idx3"), idx(&[2051, count, 28, 28], grey)).unwrap();
                fs::write(path("labels-idx1"), idx(&[2049, count], labels)).unwrap();
            }
        },
        class_names: || ["0", "1", "2"].map(str::to_owned).to_vec(),
        has_files: false,
        ..FILES
    },
    Source {
        name: "embedded",
        data: "embedded",
        class_names: || {
            open("embedded", Split::Train)
                .unwrap()
                .class_names()
                .to_vec()
        },
        has_files: false,
        ..FILES
    },
];

fn flat_validation(root: &Path, images: &Images) {
    class_folders(&root.join("train"), &CLASSES, images.train(), "png").unwrap();
    let folder = root.join("val");
    fs::create_dir_all(&folder).unwrap();
    for (number, (_, bytes)) in images.test().iter().enumerate() {
        fs::write(folder.join(name(number, "JPEG")), bytes).unwrap();
    }
}

fn development_kit(root: &Path) {
    let kit = root.join("ILSVRC2012_devkit_t12/data");
    fs::create_dir_all(&kit).unwrap();
    fs::write(kit.join("meta.mat"), META).unwrap();
    fs::write(kit.join("ILSVRC2012_validation_ground_truth.txt"), TRUTH).unwrap();
}

/// One value a pixel.
fn grey(images: &dyn Dataset, index: usize) -> Vec<u8> {
    let image = images.image(index).unwrap();
    image.pixels().iter().copied().step_by(3).collect()
}

fn idx(header: &[u32], content: impl Iterator<Item = u8>) -> Vec<u8> {
    let header = header.iter().flat_map(|number| number.to_be_bytes());
    header.chain(content).collect()
}

/// The image in the middle of 32 x 32 pixels of black.
fn cifar_record(before: &[u8], images: &dyn Dataset, index: usize) -> Vec<u8> {
    let grey = grey(images, index);
    let mut plane = [[0; 32]; 32];
    for (row, pixels) in plane[2..30].iter_mut().zip(grey.chunks_exact(28)) {
        row[2..30].copy_from_slice(pixels);
    }
    let label = images.label(index).unwrap() as u8;
    [before, &[label], &plane.as_flattened().repeat(3)].concat()
}

/// The middle of an image, without what was put around it.
fn middle(image: &eqco_data::Image) -> Vec<u8> {
    let border = (image.width() - 28) / 2;
    let rows = image
        .pixels()
        .chunks_exact(image.width() * 3)
        .skip(border)
        .take(28);
    rows.flat_map(|row| row[border * 3..(border + 28) * 3].to_vec())
        .collect()
}

/// Length, names, labels and pixels of a part.
fn check_view(source: &Source, dataset: &dyn Dataset, split: Split) {
    let expected = embedded(split);
    let what = format!("{}, {split:?}", source.name);
    assert_eq!(dataset.class_names(), (source.class_names)(), "{what}");
    let mut found = vec![0; dataset.class_names().len()];
    assert_eq!(
        (dataset.len(), dataset.is_empty()),
        (expected.len(), false),
        "{what}"
    );
    for index in 0..dataset.len() {
        assert_eq!(
            dataset.label(index),
            expected.label(index),
            "{what}, {index}"
        );
        found[dataset.label(index).unwrap() as usize] += 1;
        let image = dataset.image(index).unwrap();
        assert_eq!(
            (image.width(), image.height()),
            (source.side, source.side),
            "{what}"
        );
        assert_eq!(
            middle(&image),
            expected.image(index).unwrap().pixels(),
            "{what}, {index}"
        );
        let file = dataset.encoded(index).unwrap();
        assert_eq!(file.is_some(), source.has_files, "{what}");
        if let Some(file) = file {
            let decoded = eqco_data::decode::decode(&file, &what).unwrap();
            assert_eq!(decoded, image, "{what}, {index}");
        }
        assert!(!dataset.describe(index).is_empty(), "{what}");
    }
    assert_eq!(found[..3], counts(split), "{what}");
    assert_eq!(found[3..].iter().sum::<usize>(), 0, "{what}");
}

/// What `inspect` prints of both parts.
fn check_inspection(source: &Source, root: &Path, data: &str) {
    let names = (source.class_names)();
    let (count, side) = (names.len(), source.side);
    let shown = names.iter().take(5).map(String::as_str);
    let shown = shown.collect::<Vec<_>>().join(", ") + if count > 5 { ", ..." } else { "" };
    let format = if source.has_files {
        "PNG, grey"
    } else {
        "pixels"
    };
    for (part, of_part) in [("train", TRAIN), ("test", TEST)] {
        let arguments = ["inspect", "--data", data, "--split", part, "--scan"];
        let printed = succeeded(root, &arguments);
        let lines: Vec<&str> = printed.lines().collect();
        let images: usize = of_part.iter().sum();
        let counts = [&of_part[..], &vec![0; count - 3]].concat();
        let report = json(&succeeded(root, &[&arguments[..], &["--json"]].concat()));
        assert_eq!(
            report["labels"]["counts"],
            value!(counts),
            "{}",
            source.name
        );
        let labels = &report["labels"];
        let expected = [
            format!("data     {}, {part} part", source.name),
            format!("images   {images}"),
            format!("classes  {count}: {shown}"),
            format!(
                "labels   {} to {} images, median {} a class",
                labels["min"],
                labels["max"],
                labels["median"].as_f64().unwrap()
            ),
            format!("sample   {images} images"),
            format!("formats  {images} {format}"),
            format!("width    {side} to {side} pixels, median {side}"),
            format!("height   {side} to {side} pixels, median {side}"),
        ];
        assert_eq!(lines[..8], expected, "{}", source.name);
        let scan = format!("scan     {images} images decoded, 0 unreadable");
        assert_eq!(lines.last(), Some(&&*scan), "{}", source.name);
        assert_eq!(
            lines.len(),
            9 + usize::from(source.has_files),
            "{}",
            source.name
        );
    }
}

#[test]
fn every_source_gives_the_same_images_and_numbers() {
    let images = Images::new();
    let root = tempdir().unwrap();
    for source in &SOURCES {
        if source.name == "embedded" {
            for split in [Split::Train, Split::Test] {
                check_view(source, &*embedded(split), split);
            }
            // What `inspect` prints of all of it stands in the test of that command.
            continue;
        }
        let folder = root.path().join(source.name);
        fs::create_dir(&folder).unwrap();
        (source.write)(&folder, &images);
        // A path and not a name: there is a data set called `cifar10`.
        let data = match source.data {
            "" => format!("./{}", source.name),
            file => format!("./{}/{file}", source.name),
        };
        let path = root.path().join(&data);
        for split in [Split::Train, Split::Test] {
            let dataset = open(path.to_str().unwrap(), split).unwrap();
            check_view(source, &*dataset, split);
        }
        check_inspection(source, root.path(), &data);
    }
}
