//! What stands on the page, and what is an error.

use std::fs;
use std::path::Path;

use crate::run_folders::{
    Recipe, failed, report, succeeded, write_checkpoint, write_run, write_sweep,
};

/// Nothing on the page makes a browser fetch or run anything.
pub fn assert_self_contained(html: &str) {
    for forbidden in [
        "http://",
        "https://",
        "<script",
        "javascript:",
        "@import",
        "url(",
        "src=\"",
        "onload=",
    ] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    for part in html.split("href=\"").skip(1) {
        assert!(part.starts_with("data:"), "{}", &part[..40]);
    }
}

#[test]
fn a_sweep_becomes_one_page_with_its_files() {
    let folder = tempfile::tempdir().unwrap();
    write_sweep(&folder.path().join("sweep"));
    let out = folder.path().join("pages/page.html");
    let output = report(&[folder.path()], &out, &["--limit", "60"]);
    let (stdout, stderr) = succeeded(&output);
    assert_eq!(stderr, "");
    assert!(stdout.contains("page.html: 6 runs, "), "{stdout}");
    let html = fs::read_to_string(&out).unwrap();
    assert_self_contained(&html);
    let expected = [
        // Means over seeds by hand: 46 and 48 have a sample deviation of the root of 2.
        "<td>EqCo α=256, K=16</td><td class=\"number\">2</td><td class=\"number\">47.00 ± 1.41 (2)</td>",
        "<td class=\"number\">52.00 ± 1.41 (2)</td>",
        "<td>256.0-k16-s1</td><td>SiMo</td><td>EqCo α=256</td><td class=\"number\">16</td>",
        "<td class=\"number\">4 s</td><td>0123abc</td>",
        "kNN top-1 against the number of negatives",
        "Linear top-1 against the number of negatives",
        ">guaranteed bound<",
        ">chance</text>",
        "Nearest-neighbour accuracy during training",
        "the same in all runs",
        "Run 256.0-k16-s1: 60 training and 60 test images",
        "A &lt;fast&gt; CPU, 2 cores, avx2, cpu (portable)",
        "kNN top-1: pre-trained",
        "<td class=\"text\">60 images, train part of toy</td>",
        "<summary>config.toml of infonce-k4-s0</summary>",
        "8.0 GiB",
    ];
    for text in expected {
        let found = html.to_lowercase().contains(&text.to_lowercase());
        let text = text.trim_matches(['<', '>']);
        assert!(found || html.to_lowercase().contains(text), "{text}");
    }
    let files = folder.path().join("pages/page-files");
    let stems = [
        "negatives-knn",
        "negatives-linear",
        "loss",
        "gradient-scale",
        "neighbours",
        "map",
        "class-accuracy",
        "confusion",
    ];
    for stem in stems {
        let svg = fs::read_to_string(files.join(format!("{stem}.svg"))).unwrap();
        assert!(
            svg.starts_with("<?xml") && svg.ends_with("</svg>\n"),
            "{stem}"
        );
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{stem}");
        assert!(html.contains(&format!("<figure id=\"{stem}\"")), "{stem}");
    }
    assert_eq!(
        &fs::read(files.join("neighbours.png")).unwrap()[1..4],
        b"PNG"
    );
}

#[test]
fn the_same_runs_give_the_same_page() {
    let folder = tempfile::tempdir().unwrap();
    write_sweep(folder.path());
    let page = |name: &str| {
        let out = folder.path().join(name);
        succeeded(&report(&[folder.path()], &out, &["--limit", "40"]));
        fs::read(out).unwrap()
    };
    assert!(page("a.html") == page("b.html"));
}

#[test]
fn alpha_and_temperature_have_heat_maps() {
    let folder = tempfile::tempdir().unwrap();
    for (alpha, temperature, knn) in [
        ("64.0", 0.1, 41.0),
        ("64.0", 0.2, 42.0),
        ("\"decoupled\"", 0.1, 43.0),
        ("\"decoupled\"", 0.2, 44.25),
    ] {
        let recipe = Recipe {
            alpha,
            temperature,
            top1: Some([knn, 50.0]),
            ..Recipe::default()
        };
        let name = format!("{}-{temperature}", alpha.trim_matches('"'));
        write_run(&folder.path().join(name), recipe);
    }
    let out = folder.path().join("report.html");
    succeeded(&report(&[folder.path()], &out, &[]));
    let html = fs::read_to_string(&out).unwrap();
    for text in [
        "kNN top-1 (%) over α and temperature",
        "Gradient scale g, last epoch over α and temperature",
        ">∞ (DCL)</text>",
        ">44.2</text>",
        ">0.900</text>",
        "No run has a checkpoint",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert!(!html.contains("against the number of negatives"));
}

#[test]
fn an_unfinished_run_with_hostile_names_is_shown_with_dashes() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("<script>alert(1)<script> & co");
    write_run(
        &run,
        Recipe {
            top1: None,
            ..Recipe::default()
        },
    );
    let metrics = run.join("metrics.jsonl");
    let text = fs::read_to_string(&metrics).unwrap();
    let cut = text.rfind("\"loss\"").unwrap();
    fs::write(&metrics, &text[..cut]).unwrap();
    let data = folder.path().join("images");
    write_images(
        &data,
        &["<script>alert(2)</script>".replace('/', "∕").as_str(), "b"],
    );
    write_checkpoint(&run);
    let out = folder.path().join("report.html");
    let output = report(&[&run], &out, &["--data", data.to_str().unwrap()]);
    let (_, stderr) = succeeded(&output);
    assert!(
        stderr.contains("the last line of metrics.jsonl is cut off"),
        "{stderr}"
    );
    let html = fs::read_to_string(&out).unwrap();
    assert_self_contained(&html);
    for text in [
        "&lt;script&gt;alert(1)&lt;script&gt; &amp; co: the last line of metrics.jsonl is cut off and was left out; the run \
         has not ended; the run has no evaluation.json",
        "<td class=\"number\">1 of 2</td>",
        "<td class=\"number\">–</td><td class=\"number\">–</td><td class=\"number\">2 s</td>",
        "&lt;script&gt;alert(2)",
        "No run has been evaluated.",
    ] {
        assert!(html.contains(text), "{text}");
    }
}

/// A folder of images: eight training and four test images of each class.
fn write_images(folder: &Path, classes: &[&str]) {
    use eqco_data::Image;
    for (split, count) in [("train", 8), ("test", 4)] {
        for (label, class) in classes.iter().enumerate() {
            let below = folder.join(split).join(class);
            fs::create_dir_all(&below).unwrap();
            for number in 0..count {
                let grey: Vec<u8> = (0..256)
                    .map(|at| ((at * (2 + number) + 128 * label) % 256) as u8)
                    .collect();
                let image = Image::from_grey(16, 16, &grey).unwrap();
                fs::write(
                    below.join(format!("{number}.png")),
                    eqco_data::encode::png(&image).unwrap(),
                )
                .unwrap();
            }
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_a_sentence_without_advice_about_images() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    write_run(&run, Recipe::default());
    write_checkpoint(&run);
    for entry in fs::read_dir(run.join("checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let out = folder.path().join("report.html");
    let (_, stderr) = succeeded(&report(&[&run], &out, &[]));
    assert!(
        stderr.contains("expected a complete safetensors file"),
        "{stderr}"
    );
    assert!(!stderr.contains("--data"), "{stderr}");
}

#[test]
fn data_that_moved_is_a_sentence_and_data_that_was_asked_for_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let recipe = Recipe {
        source: "/no/such/images",
        ..Recipe::default()
    };
    write_run(&run, recipe);
    write_checkpoint(&run);
    let out = folder.path().join("report.html");
    let (_, stderr) = succeeded(&report(&[&run], &out, &[]));
    assert!(stderr.contains("cannot be shown"), "{stderr}");
    let html = fs::read_to_string(&out).unwrap();
    let reason =
        "The representation of run run cannot be shown: no data set is called `/no/such/images`";
    assert!(html.contains(reason), "{html}");
    assert!(html.contains("Give its images with --data."));

    fs::remove_file(&out).unwrap();
    let stderr = failed(&report(&[&run], &out, &["--data", "embeded"]));
    assert!(
        stderr.contains("no data set is called `embeded`"),
        "{stderr}"
    );
    assert!(
        stderr.contains("hint: did you mean `embedded`?"),
        "{stderr}"
    );
    let unlabelled = folder.path().join("unlabelled");
    write_images(&unlabelled, &[""]);
    let stderr = failed(&report(
        &[&run],
        &out,
        &["--data", unlabelled.to_str().unwrap()],
    ));
    assert!(stderr.contains("the images have no labels"), "{stderr}");
    let stderr = failed(&report(&[&run], &out, &["--picture", "other"]));
    assert!(
        stderr.contains("--picture: expected one of the runs (run), got other"),
        "{stderr}"
    );
    assert!(!out.exists());
}

#[test]
fn what_is_no_run_is_an_error_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report.html");
    let stderr = failed(&report(&[folder.path()], &out, &[]));
    assert!(stderr.contains("found no metrics.jsonl"), "{stderr}");
    assert!(
        stderr.contains("hint: give what eqco-train was given as --out"),
        "{stderr}"
    );
    let stderr = failed(&report(&[&folder.path().join("absent")], &out, &[]));
    assert!(stderr.contains("found nothing at this path"), "{stderr}");

    let run = folder.path().join("run");
    write_run(&run, Recipe::default());
    fs::write(run.join("config.toml"), "seed = ").unwrap();
    let stderr = failed(&report(&[&run], &out, &[]));
    assert!(stderr.contains("config.toml: expected TOML"), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
}
