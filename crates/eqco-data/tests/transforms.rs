//! Every transform against torchvision's output for the same parameters
//! (`python/golden_torchvision.py` wrote the files).

use std::collections::BTreeMap;
use std::path::Path;

use eqco_data::augment::{
    Region, Scratch, adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation,
    gaussian_blur, horizontal_flip, resized_crop, solarize, to_grayscale,
};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{Image, decode};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    input: String,
    transform: String,
    parameters: Vec<f64>,
    output: String,
}

fn golden(folder: &str, file: &str) -> Vec<u8> {
    let path = Path::new("tests/golden").join(folder).join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn picture(folder: &str, file: &str) -> Image {
    decode::decode(&golden(folder, file), file).unwrap()
}

/// Applies a transform by its name in the golden file.
fn apply(case: &Case, image: &Image) -> Vec<u8> {
    let scratch = &mut Scratch::default();
    let parameter = |number: usize| case.parameters[number];
    let mut rgb = image.pixels().to_vec();
    match case.transform.as_str() {
        "resized_crop" => {
            let [left, top, width, height, out_width, out_height] =
                std::array::from_fn(|number| parameter(number) as usize);
            let region = Region {
                left,
                top,
                width,
                height,
            };
            rgb = vec![0; out_width * out_height * 3];
            resized_crop(image, region, (out_width, out_height), scratch, &mut rgb);
        }
        "evaluate" => {
            let size = parameter(0) as usize;
            let recipe = Recipe::new(RecipeConfig::new(RecipeName::Eval, size)).unwrap();
            rgb = vec![0; size * size * 3];
            recipe.apply(image, &mut ChaCha8Rng::seed_from_u64(0), &mut rgb);
        }
        "horizontal_flip" => horizontal_flip(&mut rgb, image.width()),
        "adjust_brightness" => adjust_brightness(&mut rgb, parameter(0)),
        "adjust_contrast" => adjust_contrast(&mut rgb, parameter(0)),
        "adjust_saturation" => adjust_saturation(&mut rgb, parameter(0)),
        "adjust_hue" => adjust_hue(&mut rgb, parameter(0)),
        "to_grayscale" => to_grayscale(&mut rgb),
        "gaussian_blur" => {
            let kernel_size = parameter(0) as usize;
            gaussian_blur(&mut rgb, image.width(), kernel_size, parameter(1), scratch);
        }
        "solarize" => solarize(&mut rgb, parameter(0) as u8),
        other => panic!("unknown transform {other}"),
    }
    rgb
}

/// Largest and mean absolute difference in grey levels.
fn difference(ours: &[u8], theirs: &[u8]) -> (u8, f64) {
    assert_eq!(ours.len(), theirs.len());
    let differences = || ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b));
    let total: f64 = differences().map(f64::from).sum();
    (differences().max().unwrap(), total / ours.len() as f64)
}

#[test]
fn transforms_agree_with_torchvision() {
    let text = golden("transforms", "transforms.json");
    let golden: Golden = serde_json::from_slice(&text).unwrap();
    assert!(golden.cases.len() >= 60, "{} cases", golden.cases.len());
    for case in &golden.cases {
        let ours = apply(case, &picture("transforms", &case.input));
        let theirs = picture("transforms", &case.output);
        let (largest, mean) = difference(&ours, theirs.pixels());
        // All but the blur is whole-number arithmetic and must agree exactly; the blur sums floats
        // in another order, which may turn a rounding at .5.
        let (allowed, allowed_mean) = if case.transform == "gaussian_blur" {
            (1, 0.001)
        } else {
            (0, 0.0)
        };
        assert!(
            largest <= allowed && mean <= allowed_mean,
            "{}: largest difference {largest}, mean {mean}",
            case.output
        );
    }
}

/// Cases, the largest difference, and the mean difference of the worst case.
type Distance = (usize, u8, f64);

#[test]
fn the_documented_distances_from_torchvision_are_those_measured() {
    let golden: Golden = serde_json::from_slice(&golden("transforms", "transforms.json")).unwrap();
    let mut distances: BTreeMap<&str, Distance> = BTreeMap::new();
    for case in &golden.cases {
        let ours = apply(case, &picture("transforms", &case.input));
        let theirs = picture("transforms", &case.output);
        let (largest, mean) = difference(&ours, theirs.pixels());
        let worst = distances.entry(&case.transform).or_default();
        *worst = (worst.0 + 1, worst.1.max(largest), worst.2.max(mean));
    }
    assert_eq!(distances.len(), 10);
    let documented = include_str!("../src/augment/mod.rs");
    for (transform, (cases, largest, mean)) in distances {
        let mean = if mean == 0.0 {
            "0".to_owned()
        } else {
            format!("{mean:.5}")
        };
        let line = format!("//! | `{transform}` | {cases} | {largest} | {mean} |\n");
        assert!(documented.contains(&line), "the table lacks {line}");
    }
}

#[test]
fn image_files_agree_with_pillow() {
    // PNG is lossless. JPEG decoders differ in the rounding of the inverse DCT and in how they
    // enlarge the colour planes of 4:2:0.
    for (file, allowed, allowed_mean) in [
        ("rgb.png", 0, 0.0),
        ("grey.png", 0, 0.0),
        ("palette.png", 0, 0.0),
        ("transparent.png", 0, 0.0),
        ("one_bit.png", 0, 0.0),
        ("grey.jpg", 2, 0.1),
        ("444.jpg", 4, 0.5),
        ("420.jpg", 4, 0.5),
        ("progressive.jpg", 4, 0.5),
        ("restarts.jpg", 4, 0.5),
        ("cmyk.jpg", 4, 0.5),
    ] {
        let ours = picture("files", file);
        let theirs = picture("files", &format!("{}_expected.png", file.replace('.', "_")));
        assert_eq!((ours.width(), ours.height()), (61, 47), "{file}");
        let (largest, mean) = difference(ours.pixels(), theirs.pixels());
        println!("{file}: largest difference {largest}, mean {mean:.3}");
        assert!(
            largest <= allowed && mean <= allowed_mean,
            "{file}: largest difference {largest}, mean {mean}"
        );
    }
}
