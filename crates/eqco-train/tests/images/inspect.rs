//! `eqco-train inspect`.

use std::fs;

use eqco_data::decode::read_file;
use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::Recipe;
use eqco_data::{Image, Split, open};
use eqco_train::config::Preset;
use serde_json::{Value, json as value};
use tempfile::tempdir;

use super::{failed, hostile_folder, json, names, run, succeeded, text};

#[test]
fn the_embedded_set_in_numbers() {
    let root = tempdir().unwrap();
    let printed = succeeded(
        root.path(),
        &["inspect", "--data=embedded", "--classes", "--scan"],
    );
    let lines: Vec<&str> = printed.lines().collect();
    let expected = [
        "data     Fashion-MNIST 10k/2k (embedded), train part",
        "images   10000",
        "classes  10: T-shirt/top, Trouser, Pullover, Dress, Coat, ...",
        "labels   1000 to 1000 images, median 1000 a class",
        "sample   1000 images",
        "formats  1000 pixels",
        "width    28 to 28 pixels, median 28",
        "height   28 to 28 pixels, median 28",
        "scan     10000 images decoded, 0 unreadable",
        "",
        "label   images  class",
        "    0     1000  T-shirt/top",
    ];
    assert_eq!(lines[..12], expected);
    assert_eq!(lines[20], "    9     1000  Ankle boot");
    assert_eq!(lines.len(), 21);

    // The settings of a run say which images it has.
    let arguments = ["inspect", "--split=test", "--json", "--sample=7"];
    let report = json(&succeeded(root.path(), &arguments));
    assert_eq!(
        (&report["images"], &report["split"]),
        (&value!(2000), &value!("test"))
    );
    assert_eq!(
        report["labels"]["counts"],
        value!([200, 200, 200, 200, 200, 200, 200, 200, 200, 200])
    );
    assert_eq!(report["sample"]["images"], 7);
    assert_eq!(
        (&report["scan"], &report["grid"]),
        (&Value::Null, &Value::Null)
    );
    let report = json(&succeeded(
        root.path(),
        &["inspect", "--limit=25", "--json"],
    ));
    let labels =
        value!({"min": 2, "median": 2.5, "max": 3, "counts": [3, 3, 3, 3, 3, 2, 2, 2, 2, 2]});
    assert_eq!(report["labels"], labels);
}

#[test]
fn a_hostile_folder_is_told_file_by_file() {
    let root = tempdir().unwrap();
    hostile_folder(root.path());
    let arguments = [
        "inspect",
        "--data=hostile",
        "--scan",
        "--bad-list=bad.txt",
        "--json",
    ];
    let output = run(root.path(), &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report = json(&text(&output.stdout));
    assert_eq!(report["labels"]["counts"], value!([5, 3]));
    let formats = value!({"JPEG": 2, "JPEG, CMYK": 1, "JPEG, grey": 1, "PNG": 2});
    assert_eq!(report["sample"]["formats"], formats);
    assert_eq!(report["sample"]["unreadable"], 2);
    assert_eq!(
        report["sample"]["width"],
        value!({"min": 9, "median": 61.0, "max": 61})
    );
    assert_eq!(
        report["sample"]["height"],
        value!({"min": 5, "median": 47.0, "max": 47})
    );

    let scan = &report["scan"];
    assert_eq!(scan["images"], 8);
    let bad = scan["bad"].as_array().unwrap();
    let found: Vec<(u64, &str)> = bad
        .iter()
        .map(|bad| {
            (
                bad["index"].as_u64().unwrap(),
                bad["image"].as_str().unwrap(),
            )
        })
        .collect();
    let paths = ["cut", "empty", "text"].map(|name| format!("hostile/train/a/{name}.jpg"));
    assert_eq!(found, [(1, &*paths[0]), (2, &*paths[1]), (4, &*paths[2])]);
    let reasons = value!({"truncated": 1, "the file is empty": 1, "neither PNG nor JPEG": 1});
    assert_eq!(scan["reasons"], reasons);

    let list = fs::read_to_string(root.path().join("bad.txt")).unwrap();
    let lines: Vec<(&str, &str)> = list
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    for ((line, path), bad) in lines.iter().zip(&paths).zip(bad) {
        assert_eq!(line, &(path.as_str(), bad["reason"].as_str().unwrap()));
    }
}

#[test]
fn bad_images_within_the_share_are_listed_and_no_failure() {
    let root = tempdir().unwrap();
    hostile_folder(root.path());
    let base = ["inspect", "--data=hostile", "--scan"];
    let printed = |share: &str| {
        let share = format!("data.loader.max_bad_share={share}");
        let output = run(root.path(), &[&base[..], &["--set", &share]].concat());
        (output.status.code(), text(&output.stdout))
    };
    let (status, within) = printed("0.375");
    assert_eq!(status, Some(0));
    assert!(
        within.contains("37.50 % of the images: a run goes on without them"),
        "{within}"
    );
    assert!(
        within.contains("bad      hostile/train/a/empty.jpg: the file is empty\n"),
        "{within}"
    );
    let (status, beyond) = printed("0.374");
    assert_eq!(status, Some(1));
    assert!(
        beyond.contains("a run gives up (data.loader.max_bad_share = 0.374)"),
        "{beyond}"
    );
}

#[test]
fn the_grid_shows_what_the_first_step_sees() {
    let root = tempdir().unwrap();
    let arguments = [
        "inspect",
        "--seed=3",
        "--grid=views.png",
        "--grid-images=4",
        "--json",
    ];
    let report = json(&succeeded(root.path(), &arguments));
    let grid = read_file(&root.path().join("views.png")).unwrap();
    // Tiles of 24 x 4 pixels in frames of 3, and 4 pixels between and below them.
    assert_eq!(
        (grid.width(), grid.height()),
        (3 * 102 + 2 * 4, 4 * (102 + 4))
    );

    let mut config = Preset::named("demo").unwrap().config().unwrap();
    config.data.loader.seed = 3;
    let dataset = open("embedded", Split::Train).unwrap();
    let recipe = Recipe::new(config.data.recipe.clone()).unwrap();
    let settings = LoaderConfig {
        workers: 1,
        ..config.data.loader
    };
    let loader = Loader::new(dataset.clone(), vec![recipe.clone(), recipe], settings).unwrap();
    let batch = loader.epoch(0, 0).next().unwrap().unwrap();
    let views = batch.views().unwrap();
    let pixel = |x: usize, y: usize| {
        let at = (y * grid.width() + x) * 3;
        [0, 1, 2].map(|channel| grid.pixels()[at + channel])
    };
    for row in 0..4 {
        let top = row * 106;
        for (column, frame) in [(1, [0, 114, 178]), (2, [230, 159, 0])] {
            let left = column * 106;
            assert_eq!(
                [pixel(left, top), pixel(left + 101, top + 101)],
                [frame, frame]
            );
            for (y, x) in (0..24).flat_map(|y| (0..24).map(move |x| (y, x))) {
                let at = ((row * 24 + y) * 24 + x) * 3;
                let expected = &views[column - 1][at..at + 3];
                assert_eq!(pixel(left + 3 + 4 * x, top + 3 + 4 * y), expected);
                assert_eq!(pixel(left + 6 + 4 * x, top + 6 + 4 * y), expected);
            }
        }
        let index = batch.indices[row] as usize;
        let described = report["grid"]["images"][row].as_str().unwrap();
        assert_eq!(described, format!("embedded image {index}"));
        // The image itself: 28 pixels enlarged to 96.
        let image: Image = dataset.image(index).unwrap();
        let middle = (14 * 28 + 14) * 3;
        assert_eq!(
            pixel(3 + 50, top + 3 + 50),
            image.pixels()[middle..middle + 3]
        );
        assert_eq!(pixel(0, top), [255; 3], "no frame");
    }
    assert_eq!(report["grid"]["recipe"]["name"], "fashion");
    assert_eq!(report["grid"]["seed"], 3);
}

#[test]
fn the_recipe_of_the_grid_can_be_chosen_and_bad_images_do_not_stop_it() {
    let root = tempdir().unwrap();
    hostile_folder(root.path());
    let base = ["inspect", "--data=hostile", "--grid=views.png", "--json"];
    let drawn =
        |more: &[&str]| json(&succeeded(root.path(), &[&base[..], more].concat()))["grid"].clone();
    let eval = drawn(&["--recipe=eval", "--image-size=32"]);
    assert_eq!(eval["recipe"], value!({"name": "eval", "image_size": 32}));
    assert_eq!(eval["images"].as_array().unwrap().len(), 8);
    let grid = read_file(&root.path().join("views.png")).unwrap();
    assert_eq!((grid.width(), grid.height()), (314, 8 * 106));
    let tile = |row: usize, column: usize| -> Vec<u8> {
        let rows = (0..96).map(|y| ((row * 106 + 3 + y) * 314 + column * 106 + 3) * 3);
        rows.flat_map(|at| grid.pixels()[at..at + 96 * 3].to_vec())
            .collect()
    };
    assert!(
        (0..8).all(|row| tile(row, 1) == tile(row, 2)),
        "nothing is random"
    );
    let simclr = drawn(&["--recipe=simclr", "--grid-images=2"]);
    assert_eq!(
        (&simclr["recipe"]["name"], &simclr["recipe"]["hue"]),
        (&value!("simclr"), &value!(0.2))
    );
    assert_eq!(simclr["images"].as_array().unwrap().len(), 2);
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let root = tempdir().unwrap();
    let refused = |arguments: &str, expected: &str| {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let message = failed(root.path(), &[&["inspect"], &arguments[..]].concat());
        assert!(message.contains(expected), "{expected} in {message}");
    };
    refused("--recipe eval", "--grid <FILE.png>");
    refused("--grid-images 3", "--grid <FILE.png>");
    refused("--bad-list bad.txt", "--scan");
    refused("--grid a.png --recipe mocov2", "`moco_v2`");
    refused("--grid a.jpg", "expected a name that ends in .png");
    refused("--grid a.png --grid-images 0", "--grid-images");
    refused("--sample 0", "--sample");
    refused("--grid no/a.png", "hint: create the folder first");
    refused("--data nothing", "no data set is called `nothing`");
    refused("--preset dem", "`demo`");
    assert!(names(root.path()).is_empty());
}
